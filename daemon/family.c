#include "family.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/session.h"
#include "sys/pidfd.h"

#define ROUNDS_MAX	8 /* a child may be made while we look */
#define ENVIRONMENT_MAX (4u << 20)

/* => text ends with a NUL. */
static bool has_variable(const char *text, size_t size, const char *wanted)
{
	for (const char *p = text; p < text + size; p += strlen(p) + 1)
		if (!strcmp(p, wanted))
			return true;
	return false;
}

static bool started_with(int process, const char *wanted)
{
	int fd = openat(process, "environ", O_RDONLY | O_CLOEXEC);
	char *text = NULL;
	size_t size = 0;
	ssize_t n = 1;
	bool found;

	while (fd >= 0 && n > 0 && size < ENVIRONMENT_MAX) {
		char *more = realloc(text, size + 4097);

		if (!more)
			break;
		text = more;
		n = read(fd, text + size, 4096);
		size += n > 0 ? (size_t)n : 0;
	}
	if (fd >= 0)
		close(fd);
	if (text)
		text[size] = 0;
	found = text && has_variable(text, size, wanted);
	free(text);
	return found;
}

/* 1 if it was one of them and now ends. The pidfd comes first: whatever is read through the open
 * directory afterwards is of that process. */
static unsigned kill_one(int proc, const char *name, const char *wanted, uid_t uid)
{
	pid_t pid = (pid_t)atoi(name);
	int pidfd, process;
	struct stat st;
	unsigned n = 0;

	if (pid <= 1 || pid == getpid() || fstatat(proc, name, &st, 0) < 0 ||
	    (uid != 0 && st.st_uid != uid))
		return 0;
	pidfd = pidfd_open_pid(pid);
	if (pidfd < 0)
		return 0;
	process = openat(proc, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (process >= 0 && started_with(process, wanted) && fstat(process, &st) == 0 &&
	    (uid == 0 || st.st_uid == uid))
		n = !pidfd_ended(pidfd, 0) && pidfd_kill(pidfd, SIGKILL) == 0;
	if (process >= 0)
		close(process);
	close(pidfd);
	return n;
}

static unsigned kill_round(const char *wanted, uid_t uid)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	unsigned n = 0;

	while (proc && (entry = readdir(proc)))
		if (*entry->d_name >= '1' && *entry->d_name <= '9')
			n += kill_one(dirfd(proc), entry->d_name, wanted, uid);
	if (proc)
		closedir(proc);
	return n;
}

unsigned family_kill(uint64_t key, uid_t uid)
{
	char wanted[64];
	unsigned n, all = 0;

	snprintf(wanted, sizeof(wanted), SESSION_ENV_GROUP "=%016" PRIx64, key);
	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		n = kill_round(wanted, uid);
		all += n;
		if (!n)
			break;
	}
	return all;
}
