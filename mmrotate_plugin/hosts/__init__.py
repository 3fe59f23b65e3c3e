"""Mend mmdet and mmrotate where boxes would leave their pixels or tools would stop."""
