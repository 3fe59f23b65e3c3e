"""What is mended in mmdet and mmrotate: boxes that would leave their pixels, tools that would stop."""
