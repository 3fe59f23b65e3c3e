/* What tells an older build apart. */

#include "processors.h"

EXPORT int loops_interface(void) { return 2; } /* what library.py expects */
