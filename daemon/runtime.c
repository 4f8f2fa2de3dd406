#include "runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "failure.h"
#include "proto/session.h"
#include "remove.h"

static bool on_tmpfs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* The lock of a daemon that still runs, by its pid in the file; 0 = not known. */
static int read_pid(int fd)
{
	char text[16] = "";

	return pread(fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : 0;
}

/* Opens and locks; -EWOULDBLOCK: someone has it. The file may be removed by its last owner between
 * open and flock: then it is another file, and we try again. */
static int take_lock(const char *path, int *ret_pid)
{
	for (;;) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat ours, there;

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			int r = -errno;

			*ret_pid = read_pid(fd);
			close(fd);
			return r;
		}
		if (fstat(fd, &ours) == 0 && stat(path, &there) == 0 &&
		    ours.st_ino == there.st_ino && ours.st_dev == there.st_dev) {
			if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
				close(fd);
				return -EIO;
			}
			return fd;
		}
		close(fd);
	}
}

static int make_private(struct runtime *runtime, const char *shm, mode_t mode,
			struct failure *failure)
{
	char *dir = runtime->private_dir, path[PATH_MAX + 8];
	int pid, lock;

	/* Another daemon that starts sweeps what nobody holds: also this, while it is not locked yet. */
	for (unsigned tries = 0; tries < 16; tries++) {
		snprintf(dir, sizeof(runtime->private_dir), "%s/upager-%d-XXXXXX", shm, (int)getpid());
		if (!mkdtemp(dir)) {
			int r = fail(failure, -errno, "%s: can't make a directory: %s", shm,
				     strerror(errno));

			*dir = 0;
			return r;
		}
		snprintf(path, sizeof(path), "%s/lock", dir);
		lock = take_lock(path, &pid);
		if (lock != -EWOULDBLOCK && lock != -ENOENT)
			break;
	}
	runtime->private_lock = lock;
	if (lock < 0)
		return fail(failure, lock, "%s: can't lock it: %s", path, strerror(-lock));
	if (chmod(dir, mode) < 0)
		return fail(failure, -errno, "%s: %s", dir, strerror(errno));
	return 0;
}

static int make_dir(struct runtime *runtime, struct failure *failure)
{
	if (mkdir(runtime->dir, 0711) == 0) {
		runtime->dir_made = true;
		return chmod(runtime->dir, 0711) < 0 ? -errno : 0; /* whatever the umask */
	}
	if (errno == EEXIST)
		return 0;
	return fail(failure, -errno, "runtime directory %s: %s", runtime->dir, strerror(errno));
}

static int lock_socket(struct runtime *runtime, struct failure *failure)
{
	char path[PATH_MAX + 8];
	int pid = 0;

	snprintf(path, sizeof(path), "%s.lock", runtime->socket);
	runtime->lock = take_lock(path, &pid);
	if (runtime->lock == -EWOULDBLOCK)
		return fail(failure, -EADDRINUSE, "another upagerd (pid %d) listens on %s", pid,
			    runtime->socket);
	if (runtime->lock < 0)
		return fail(failure, runtime->lock, "%s: %s", path, strerror(-runtime->lock));
	return 0;
}

static int make_state(struct runtime *runtime, const char *shm, struct failure *failure)
{
	const char *parent = *runtime->private_dir ? runtime->private_dir : runtime->dir;
	int r;

	if (!on_tmpfs(parent)) {
		r = make_private(runtime, shm, 0700, failure);
		if (r < 0)
			return r;
		parent = runtime->private_dir;
	}
	if (snprintf(runtime->state, sizeof(runtime->state), "%s/state", parent) >= PATH_MAX)
		return fail(failure, -ENAMETOOLONG, "%s: too long", parent);
	if (mkdir(runtime->state, 0700) == 0)
		runtime->state_made = true;
	else if (errno != EEXIST)
		return fail(failure, -errno, "%s: %s", runtime->state, strerror(errno));
	return 0;
}

int runtime_open(struct runtime *runtime, const char *socket, const char *runtime_dir,
		 const char *shm, struct failure *failure)
{
	int r;

	*runtime = (struct runtime){.lock = -1, .private_lock = -1, .opened = true};
	runtime_sweep(shm);
	if (!socket) {
		r = make_private(runtime, shm, 0711, failure);
		if (r < 0)
			return r;
		strcpy(runtime->dir, runtime->private_dir);
		snprintf(runtime->socket, PATH_MAX, "%.*s/upagerd.sock", PATH_MAX - 32,
			 runtime->dir);
	} else {
		const char *slash = strrchr(socket, '/');

		snprintf(runtime->socket, PATH_MAX, "%s", socket);
		if (runtime_dir)
			snprintf(runtime->dir, PATH_MAX, "%s", runtime_dir);
		else
			snprintf(runtime->dir, PATH_MAX, "%.*s",
				 slash == socket ? 1 : (int)(slash - socket), socket);
		r = make_dir(runtime, failure);
		if (r < 0)
			return r;
	}
	snprintf(runtime->session, PATH_MAX, "%.*s" SESSION_SUFFIX, PATH_MAX - 16, runtime->socket);
	r = lock_socket(runtime, failure);
	return r < 0 ? r : make_state(runtime, shm, failure);
}

void runtime_close(struct runtime *runtime)
{
	char path[PATH_MAX + 8];

	if (!runtime->opened)
		return;
	if (runtime->bound) {
		unlink(runtime->session);
		unlink(runtime->socket);
	}
	if (runtime->state_made)
		remove_tree(AT_FDCWD, runtime->state);
	if (runtime->lock >= 0) {
		snprintf(path, sizeof(path), "%s.lock", runtime->socket);
		unlink(path);
		close(runtime->lock);
	}
	if (*runtime->private_dir)
		remove_tree(AT_FDCWD, runtime->private_dir);
	if (runtime->private_lock >= 0)
		close(runtime->private_lock);
	if (runtime->dir_made)
		rmdir(runtime->dir);
	runtime->opened = false;
}

int runtime_add_leftover(const struct runtime *runtime, const char *path)
{
	char list[PATH_MAX + 16];
	struct stat st;
	FILE *file;

	if (!*runtime->private_dir)
		return 0;
	if (lstat(path, &st) < 0)
		return -errno;
	snprintf(list, sizeof(list), "%s/leftovers", runtime->private_dir);
	file = fopen(list, "ae");
	if (!file)
		return -errno;
	fprintf(file, "%llu %llu %s\n", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino, path);
	return fclose(file) ? -errno : 0;
}

/* Removes the files listed, if each still is the file that was noted and is ours. */
static void remove_leftovers(int dir)
{
	int fd = openat(dir, "leftovers", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
	unsigned long long device, inode;
	char line[PATH_MAX + 64];

	while (file && fgets(line, sizeof(line), file)) {
		struct stat st;
		int at = 0;

		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%llu %llu %n", &device, &inode, &at) == 2 && at > 0 &&
		    lstat(line + at, &st) == 0 && (S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode)) &&
		    st.st_dev == device &&
		    st.st_ino == inode && st.st_uid == geteuid())
			unlink(line + at);
	}
	if (file)
		fclose(file);
}

/* Was this directory, of ours, left by a daemon that is no more? Then *ret_lock (-1: it has none) is held, so
 * that nobody begins to live there. */
static bool is_abandoned(int dir, int *ret_lock)
{
	struct timespec now;
	struct stat st;

	*ret_lock = openat(dir, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (*ret_lock >= 0)
		return flock(*ret_lock, LOCK_EX | LOCK_NB) == 0;
	/* Its daemon may be about to make the lock. */
	clock_gettime(CLOCK_REALTIME, &now);
	return errno == ENOENT && fstat(dir, &st) == 0 && now.tv_sec - st.st_mtime > 60;
}

unsigned runtime_sweep(const char *shm)
{
	DIR *list = opendir(shm);
	const struct dirent *entry;
	unsigned n = 0;

	while (list && (entry = readdir(list))) {
		int dir, lock = -1;
		struct stat st;

		if (strncmp(entry->d_name, "upager-", 7) != 0)
			continue;
		dir = openat(dirfd(list), entry->d_name,
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (dir < 0)
			continue;
		if (fstat(dir, &st) == 0 && st.st_uid == geteuid() &&
		    is_abandoned(dir, &lock)) {
			remove_leftovers(dir);
			remove_tree(dirfd(list), entry->d_name);
			n++;
		}
		fd_close(&lock);
		close(dir);
	}
	if (list)
		closedir(list);
	return n;
}
