/* `upager snapshot`. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "base/size.h"
#include "commands.h"
#include "figures.h"
#include "terminal.h"

/* A file without a name, where the file system knows such: if anything goes wrong, whatever ends us,
 * nothing is left. */
static int open_nameless(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;

	free(copy);
	return fd;
}

static int open_file(const char *path, bool *ret_named)
{
	struct stat stat;
	int fd;

	*ret_named = false;
	fd = lstat(path, &stat) < 0 ? open_nameless(path) : -1;
	if (fd >= 0)
		return fd;
	*ret_named = true;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int name_file(int fd, const char *path)
{
	char link[32];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static void show_progress(int fd, int64_t size)
{
	char done[24], all[24];
	struct stat stat;

	if (fstat(fd, &stat) == 0)
		progress_show("%s of %s", size_format((uint64_t)stat.st_blocks * 512, done),
			      size_format((uint64_t)size, all));
}

static void print_result(const char *path, const json_t *answer)
{
	int64_t all = figure(answer, "resident") + figure(answer, "evicted");
	char size[24], lost[24];

	printf("%s: %s", path, size_format((uint64_t)all, size));
	if (figure(answer, "lost"))
		printf(", %s of it lost: discarded before it could be copied",
		       size_format((uint64_t)figure(answer, "lost"), lost));
	printf("; writers waited %.1f ms\n", (double)figure(answer, "stall_us") / 1000);
}

static int take(const struct ask *ask, long pid, json_t **ret)
{
	bool named;
	int fd = open_file(ask->output, &named), r = 0, status;

	if (fd < 0)
		return say_failed("snapshot: %s: %s", ask->output, strerror(-fd));
	status = ask_snapshot(ask, pid, fd, show_progress, ret);
	progress_clear();
	if (status != 0 && named)
		unlink(ask->output);
	else if (status == 0 && !named)
		r = name_file(fd, ask->output);
	close(fd);
	if (r < 0)
		return say_failed("snapshot: %s: %s", ask->output, strerror(-r));
	return status;
}

int command_snapshot(int argc, char **argv)
{
	json_t *answer = NULL;
	struct ask ask;
	int status = ask_parse(&ask, argc, argv, 1, 1);
	long pid;
	char *end;

	if (status != 0)
		return status;
	errno = 0;
	pid = strtol(ask.words[0], &end, 10);
	if (*end || pid <= 0 || errno)
		return say_failed("snapshot: \"%s\" is no process id; `upager ps` lists tasks",
				  ask.words[0]);
	if (!ask.output)
		return say_failed("snapshot: to which file? Give -o FILE");
	status = take(&ask, pid, &answer);
	if (status == 0 && ask.json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (status == 0) {
		print_result(ask.output, answer);
	}
	json_decref(answer);
	return status;
}
