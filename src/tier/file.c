/* The swap file or block device. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/blockdev.h"
#include "tier/tier.h"

struct tier_file {
	struct tier tier;
	int fd;
	bool direct, preallocated, remove;
};

static struct tier_file *file_of(const struct tier *tier)
{
	return container_of(tier, struct tier_file, tier);
}

static int file_start(struct tier_io *io)
{
	struct tier_file *file = file_of(io->tier);
	uint32_t length = io->n * PAGE_SIZE - io->bytes_done;
	uint64_t offset = pages_to_bytes(io->slot) + io->bytes_done;
	char *at = (char *)io->buffer + io->bytes_done;

	if (io->write)
		return uring_write(io->uring, file->fd, at, length, offset, io->buffer_index,
				   &io->completion);
	return uring_read(io->uring, file->fd, at, length, offset, io->buffer_index,
			  &io->completion);
}

static void file_done(struct completion *completion, int result)
{
	struct tier_io *io = container_of(completion, struct tier_io, completion);
	int r = 0;

	if (result == -EAGAIN || result == -EINTR) {
		r = file_start(io);
		if (r == 0)
			return;
	} else if (result < 0) {
		r = result;
	} else {
		io->bytes_done += (uint32_t)result;
		if (result == 0) {
			r = -EIO; /* past the end: somebody truncated it */
		} else if (io->bytes_done < io->n * PAGE_SIZE) {
			r = file_start(io);
			if (r == 0)
				return;
		}
	}
	if (r < 0)
		atomic_fetch_add(&io->tier->errors, 1);
	io->finished(io, r);
}

static int file_submit(struct tier *tier, struct tier_io *io)
{
	io->tier = tier;
	io->completion.done = file_done;
	return file_start(io);
}

static void file_stat(const struct tier *tier, struct tier_stat *stat)
{
	stat->direct = file_of(tier)->direct;
	stat->preallocated = file_of(tier)->preallocated;
	stat->errors = MAX(stat->errors, atomic_load(&tier->errors));
}

static void file_remove(struct tier *tier)
{
	struct tier_file *file = file_of(tier);

	if (file->remove)
		unlink(tier->path);
	file->remove = false;
}

static void file_close(struct tier *tier)
{
	struct tier_file *file = file_of(tier);

	file_remove(tier);
	fd_close(&file->fd);
	free(file);
}

static int file_flush(struct tier *tier)
{
	return fdatasync(file_of(tier)->fd) ? -errno : 0;
}

static const struct tier_ops file_ops = {
	.name = "file",
	.submit = file_submit,
	.flush = file_flush,
	.stat = file_stat,
	.remove = file_remove,
	.close = file_close,
};

static int set_size(struct tier_file *file, const struct tier_file_options *options,
		    uint64_t *ret_size)
{
	struct stat st;
	uint64_t size = options->size;

	if (fstat(file->fd, &st))
		return -errno;
	if (S_ISBLK(st.st_mode)) {
		uint64_t device_size;

		int r = blockdev_size(file->fd, &device_size);

		if (r < 0)
			return r;
		*ret_size = size ? MIN(size, device_size) : device_size;
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return -ENOTBLK;
	if (!size)
		size = (uint64_t)st.st_size;
	if ((uint64_t)st.st_size < size && ftruncate(file->fd, (off_t)size))
		return -errno;
	if (options->preallocate && fallocate(file->fd, 0, 0, (off_t)size))
		return -errno;
	file->preallocated = options->preallocate;
	*ret_size = size;
	return 0;
}

static int open_file(struct tier_file *file, const struct tier_file_options *options)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
	struct stat st;

	if (options->create)
		file->fd = open(options->path, flags | O_CREAT | O_EXCL, 0600);
	if (file->fd >= 0)
		file->remove = true;
	else if (!options->create || errno == EEXIST) {
		if (stat(options->path, &st) == 0 && S_ISBLK(st.st_mode))
			flags |= O_EXCL; /* refuses mounted devices and active swap */
		file->fd = open(options->path, flags & ~O_NOFOLLOW);
	}
	if (file->fd < 0)
		return -errno;
	if (flock(file->fd, LOCK_EX | LOCK_NB))
		return -EBUSY;
	/* Some file systems (tmpfs before 6.6) have no O_DIRECT: buffered I/O then. */
	flags = fcntl(file->fd, F_GETFL);
	file->direct = options->direct && fcntl(file->fd, F_SETFL, flags | O_DIRECT) == 0;
	return 0;
}

int tier_file_open(const struct tier_file_options *options, struct tier **ret, uint32_t *ret_slots)
{
	struct tier_file *file = calloc(1, sizeof(*file));
	uint64_t size = 0;
	int r;

	if (!file)
		return -ENOMEM;
	file->fd = -1;
	file->tier.ops = &file_ops;
	r = strlen(options->path) < sizeof(file->tier.path) ? 0 : -ENAMETOOLONG;
	if (r == 0) {
		strcpy(file->tier.path, options->path);
		r = open_file(file, options);
	}
	if (r == 0)
		r = set_size(file, options, &size);
	if (r == 0 && size < (1u << 20))
		r = -EINVAL;
	if (r < 0) {
		file_close(&file->tier);
		return r;
	}
	*ret_slots = (uint32_t)MIN(bytes_to_pages(size), 1ull << SLOT_INDEX_BITS);
	*ret = &file->tier;
	return 0;
}
