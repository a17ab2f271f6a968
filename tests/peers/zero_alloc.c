/* Loaded before Debian's ndmjob for its tape conformance checks. glib answers NULL for an
 * allocation of 0 bytes, which ndmjob takes for "out of memory" when it encodes a TAPE_WRITE of
 * length 0: a fault of that client, mended here from outside so that its further checks run. */
#include <stdlib.h>

void *g_malloc(unsigned long size)
{
	void *memory = malloc(size ? size : 1);
	if (!memory)
		abort();
	return memory;
}
