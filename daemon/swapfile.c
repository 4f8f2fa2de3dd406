#include "swapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/size.h"
#include "failure.h"
#include "pager/pager.h"

static int check_size(unsigned i, uint64_t size, const char *key, const char *path,
		      struct failure *failure)
{
	char text[24];

	if (size >= SWAPFILE_SIZE_MIN)
		return 0;
	return fail(failure, -EINVAL, "swap[%u].%s: %s: %s is too small, at least 1 MiB is needed",
		    i, key, path, size_format(size, text));
}

static int check_room(unsigned i, const struct pager_swap *swap, const char *where, uint64_t has,
		      struct failure *failure)
{
	struct statvfs fs;
	uint64_t room;
	char wanted[24], found[24];

	if (!swap->preallocate || swap->size <= has || statvfs(where, &fs) < 0)
		return 0;
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (room >= swap->size - has)
		return 0;
	return fail(failure, -ENOSPC,
		    "swap[%u].size: %s: %s are to be reserved, but the file system has %s free", i,
		    swap->path, size_format(swap->size - has, wanted), size_format(room, found));
}

bool swapfile_direct_works(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_DIRECT, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0 || errno != EINVAL;
}

static int fail_direct(unsigned i, const struct pager_swap *swap, int r, struct failure *failure)
{
	return fail(failure, r,
		    "swap[%u].direct: %s: direct I/O does not work there (%s): set it to false", i,
		    swap->path, strerror(-r));
}

static int check_missing(unsigned i, const struct pager_swap *swap, struct failure *failure)
{
	char copy[PATH_MAX];
	const char *parent;
	int r;

	if (!swap->create)
		return fail(failure, -ENOENT,
			    "swap[%u].path: %s: no such file (\"create\": true would make it)", i,
			    swap->path);
	r = check_size(i, swap->size, "size", swap->path, failure);
	if (r < 0)
		return r;
	snprintf(copy, sizeof(copy), "%s", swap->path);
	parent = dirname(copy);
	/* The state directory, when it is not systemd that starts us; what fails is told below. */
	if (access(parent, F_OK) < 0 && errno == ENOENT)
		(void)!mkdir(parent, 0700);
	if (faccessat(AT_FDCWD, parent, W_OK | X_OK, AT_EACCESS) < 0)
		return fail(failure, -errno, "swap[%u].path: %s: can't make it: %s: %s", i,
			    swap->path, parent, strerror(errno));
	if (swap->direct && !swapfile_direct_works(parent))
		return fail_direct(i, swap, -EINVAL, failure);
	return check_room(i, swap, parent, 0, failure);
}

/* => fd is open for writing. */
static int check_open(unsigned i, const struct pager_swap *swap, int fd, const struct stat *st,
		      struct failure *failure)
{
	uint64_t has = (uint64_t)st->st_size;
	char wanted[24], found[24];
	int r;

	if (S_ISBLK(st->st_mode)) {
		off_t end = lseek(fd, 0, SEEK_END);

		has = end > 0 ? (uint64_t)end : 0;
		if (swap->size > has)
			return fail(failure, -EINVAL,
				    "swap[%u].size: %s: %s is more than the device has (%s)", i,
				    swap->path, size_format(swap->size, wanted),
				    size_format(has, found));
	}
	r = check_size(i, swap->size ? swap->size : has, swap->size ? "size" : "path", swap->path,
		       failure);
	return r < 0 || S_ISBLK(st->st_mode) ? r : check_room(i, swap, swap->path, has, failure);
}

static int check_existing(unsigned i, const struct pager_swap *swap, const struct stat *st,
			  struct failure *failure)
{
	bool block = S_ISBLK(st->st_mode);
	int fd, r;

	if (!block && !S_ISREG(st->st_mode))
		return fail(failure, -EINVAL,
			    "swap[%u].path: %s: neither a regular file nor a block device", i,
			    swap->path);
	/* On a block device O_EXCL asks whether it is mounted or swapped on already. */
	fd = open(swap->path, O_RDWR | O_CLOEXEC | (block ? O_EXCL : 0));
	if (fd < 0 && errno == EBUSY)
		return fail(failure, -EBUSY,
			    "swap[%u].path: %s: is in use (mounted, or the kernel's swap)", i,
			    swap->path);
	if (fd < 0)
		return fail(failure, -errno, "swap[%u].path: %s: can't be written: %s", i,
			    swap->path, strerror(errno));
	r = check_open(i, swap, fd, st, failure);
	close(fd);
	if (r >= 0 && swap->direct) {
		fd = open(swap->path, O_RDWR | O_CLOEXEC | O_DIRECT);
		if (fd < 0)
			return fail_direct(i, swap, -errno, failure);
		close(fd);
	}
	return r;
}

int swapfile_check(const struct pager_swap *swaps, size_t n, bool *ret_missing,
		   struct failure *failure)
{
	for (unsigned i = 0; i < n; i++) {
		struct stat st, other;
		int r;

		ret_missing[i] = stat(swaps[i].path, &st) < 0;
		if (ret_missing[i] && errno != ENOENT)
			return fail(failure, -errno, "swap[%u].path: %s: %s", i, swaps[i].path,
				    strerror(errno));
		r = ret_missing[i] ? check_missing(i, &swaps[i], failure)
				   : check_existing(i, &swaps[i], &st, failure);
		if (r < 0)
			return r;
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(swaps[i].path, swaps[j].path) ||
			    (!ret_missing[i] && stat(swaps[j].path, &other) == 0 &&
			     st.st_ino == other.st_ino && st.st_dev == other.st_dev))
				return fail(failure, -EINVAL,
					    "swap[%u].path: %s: is swap[%u] already", i,
					    swaps[i].path, j);
	}
	return 0;
}
