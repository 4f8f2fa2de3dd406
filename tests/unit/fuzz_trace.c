/* Bytes of a file that says it is a trace: every form is written of it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trace_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct trace_header header = {
		.magic = TRACE_MAGIC, .version = TRACE_VERSION, .size = sizeof(header)};
	static struct trace_file file;
	trace_writer *const writers[] = {trace_write_text, trace_write_perfetto};
	static FILE *out;
	static int fd = -1;
	char path[32];

	if (fd < 0) {
		fd = memfd_create("trace", MFD_CLOEXEC);
		out = fopen("/dev/null", "w");
	}
	/* Half of them with a header that is right. */
	if (ftruncate(fd, 0) < 0 || (size && data[0] & 1 &&
				     pwrite(fd, &header, sizeof(header), 0) < 0) ||
	    pwrite(fd, data, size, size && data[0] & 1 ? sizeof(header) : 0) < 0)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (unsigned i = 0; i < 2; i++) {
		if (trace_file_open(&file, path) == 0)
			writers[i](&file, out);
		trace_file_close(&file);
	}
	return 0;
}
