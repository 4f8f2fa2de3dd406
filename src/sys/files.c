#include "sys/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int file_identify(int fd, struct file_identity *ret)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
		  STATX_TYPE | STATX_INO | STATX_SIZE, &st))
		return -errno;
	if (!S_ISREG(st.stx_mode))
		return -EINVAL;
	*ret = (struct file_identity){
		.device = makedev(st.stx_dev_major, st.stx_dev_minor),
		.inode = st.stx_ino,
		.size = st.stx_size,
	};
	return 0;
}

int file_access(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	return flags & (O_PATH | O_APPEND | O_DIRECT) ? -EINVAL : flags & O_ACCMODE;
}

int file_memory(const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	/* A memfd is everybody's: whoever can read it could open it again for writing. */
	if (fchmod(fd, 0600) == 0 && ftruncate(fd, (off_t)size) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

int file_read_only(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int file_punch(int fd, uint64_t offset, uint64_t length)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			 (off_t)length)
		       ? -errno
		       : 0;
}

bool file_has_page(int fd, uint64_t offset)
{
	return lseek(fd, (off_t)offset, SEEK_DATA) == (off_t)offset;
}

int file_resize(int fd, uint64_t size)
{
	return ftruncate(fd, (off_t)size) ? -errno : 0;
}

int file_read(int fd, void *to, uint64_t length, uint64_t offset)
{
	ssize_t n = pread(fd, to, length, (off_t)offset);

	return n < 0 ? -errno : (uint64_t)n == length ? 0 : -EIO;
}

int file_write(int fd, const void *from, uint64_t length, uint64_t offset)
{
	ssize_t n = pwrite(fd, from, length, (off_t)offset);

	return n < 0 ? -errno : (uint64_t)n == length ? 0 : -EIO;
}

bool file_is_fresh(int fd)
{
	struct file_identity file;

	return file_access(fd) > O_RDONLY && file_identify(fd, &file) == 0 && file.size == 0;
}

int file_map_new(int dir_fd, const char *name, uint64_t size, void **ret)
{
	int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r = 0;
	void *memory = MAP_FAILED;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) == 0)
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (memory == MAP_FAILED) {
		r = -errno;
		unlinkat(dir_fd, name, 0);
	} else {
		*ret = memory;
	}
	close(fd);
	return r;
}

void file_unmap(int dir_fd, const char *name, uint64_t size, void *memory)
{
	if (!memory)
		return;
	munmap(memory, size);
	unlinkat(dir_fd, name, 0);
}
