/* Traces from files: ours, and recordings of `upager trace`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "history.h"
#include "proto/trace.h"
#include "recording.h"
#include "trace.h"

#define MAGIC "pagetrc1"

static void touch(struct history *h, uint64_t address, bool write)
{
	history_touch(h, history_page(h, history_task(h, 0), bytes_to_pages(address)), write);
}

static int read_text(FILE *file, struct history *h, uint64_t *ret_line)
{
	char line[256], *end;

	for (uint64_t number = 1; fgets(line, sizeof(line), file); number++) {
		uint64_t address;

		line[strcspn(line, "#\n")] = 0;
		if (!line[strspn(line, " \t")])
			continue;
		errno = 0;
		address = strtoull(line, &end, 0);
		end += strspn(end, " \t");
		if (errno || end == line || !strchr("rw", *end)) {
			*ret_line = number;
			return -EINVAL;
		}
		touch(h, address, *end == 'w');
	}
	return ferror(file) ? -EIO : 0;
}

static int read_binary(FILE *file, struct history *h)
{
	uint64_t words[512];
	size_t n;

	while ((n = fread(words, sizeof(*words), ARRAY_SIZE(words), file)))
		for (size_t i = 0; i < n; i++)
			touch(h, words[i], words[i] & 1);
	return ferror(file) ? -EIO : 0;
}

static int read_any(FILE *file, const char *path, struct history *h, struct source *ret)
{
	static const uint64_t recorded = TRACE_MAGIC;
	char magic[8];
	bool told = fread(magic, sizeof(magic), 1, file) == 1;

	if (told && !memcmp(magic, &recorded, sizeof(magic))) {
		ret->kind = SOURCE_RECORDING;
		return recording_read(path, h, &ret->recording);
	}
	if (told && !memcmp(magic, MAGIC, sizeof(magic))) {
		ret->kind = SOURCE_BINARY;
		return read_binary(file, h);
	}
	rewind(file);
	return read_text(file, h, &ret->line);
}

int trace_read(const char *path, struct trace *ret, struct source *ret_source)
{
	struct history history = {0};
	FILE *file = fopen(path, "re");
	int r;

	*ret_source = (struct source){0};
	if (!file)
		return -errno;
	r = read_any(file, path, &history, ret_source);
	fclose(file);
	if (r == 0)
		r = history_trace(&history, ret);
	history_done(&history);
	return r;
}
