/*
 * libupager: a program asks upagerd to page its memory, and to serve its file mappings.
 *
 * Functions return 0, or a negative errno value (-ENOMEM), and leave their outputs alone then; none
 * sets errno. Lengths, offsets and sizes are bytes; pages have 4096. Any thread may call any
 * function at any time. A handle is plain memory: it holds no descriptor, and is good in forked
 * children, too.
 *
 * Link with -lupager. The manual pages, upager_open(3) and those it names, say more.
 */
#ifndef UPAGER_H
#define UPAGER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct upager;

struct upager_options {
	/** sizeof(struct upager_options): later versions may have more. */
	size_t size;
	/** Path of the daemon's control socket. NULL: $UPAGER_SOCKET, or else
	 * /run/upager/upagerd.sock. */
	const char *socket;
	/** Name of the group whose limit this process shares: 1 to 64 printable characters without
	 * blank and '/'. It is made if it isn't there. NULL: one of its own, "pid-NUMBER". */
	const char *group;
	/** Bytes of anonymous memory that a group which is made now may hold, at least 16 MiB;
	 * 0: no limit. A group that exists keeps its own. */
	uint64_t memory;
};

/**
 * Attaches the process to the daemon, as `upager run` would have done: from now on its anonymous
 * memory, and that of the children it forks, is counted and paged. A process that is attached
 * already stays as it is, and only gets a handle; the group and the limit of the options are
 * ignored then.
 *
 * options: may be NULL, which means all defaults.
 * *ret: the handle, for upager_close().
 *
 * -ENOENT or -ECONNREFUSED: no daemon listens there. -EACCES: the group is another user's. -EINVAL:
 * the group's name, or options->size. -ERANGE: the limit. -ENAMETOOLONG: the socket's path, or the
 * group's name. -ETIMEDOUT: the daemon does not answer. -EALREADY: an earlier try to attach this
 * process failed, and can't be repeated. -ENOMEM, -EMFILE, …
 */
int upager_open(const struct upager_options *options, struct upager **ret);

/**
 * Frees the handle. NULL is fine. Mappings stay, and so does the process: it is attached until it
 * ends or executes another program.
 */
void upager_close(struct upager *upager);

/**
 * Maps `length` bytes of private anonymous memory, readable, writable, zero: mmap(2), for symmetry.
 * Like all such memory of an attached process it is paged.
 *
 * -ENOMEM, -EINVAL (length is 0).
 */
int upager_map_anon(struct upager *upager, size_t length, void **ret);

/** Flags of upager_map_file(): one of the two. */
enum {
	/** Writes are the process's own, and never reach the file (MAP_PRIVATE). Pages that are not
	 * written are shared by all who map the file through the daemon. */
	UPAGER_PRIVATE = 1,
	/** Writes are seen by all who map the file through the daemon, and go to the file: some
	 * seconds later, at upager_sync(), or when nobody maps it any more (MAP_SHARED). */
	UPAGER_SHARED = 2,
};

/**
 * Maps `length` bytes of a regular file, from `offset` on. Pages are read by the daemon when they
 * are touched, once for all processes, and held in its `image_memory`; they don't count to the
 * limit, but the copies do that private writes make.
 *
 * fd: open for reading; for UPAGER_SHARED with PROT_WRITE, for reading and writing; without
 * O_APPEND
 *   and O_DIRECT. It may be closed afterwards.
 * offset: a multiple of 4096.
 * length: more than 0; it is rounded up to whole pages.
 * flags: UPAGER_PRIVATE or UPAGER_SHARED.
 * prot: PROT_READ, PROT_WRITE, PROT_EXEC, as mmap(2).
 * page_size_hint: a power of two of at least 4096: how much is best read at once, for files that
 * are
 *   used in records or blocks; at most 2 MiB has an effect. 0: the daemon decides.
 *
 * Past the end of the file, and where it cannot be read, a touch raises SIGBUS. What others write
 * to the file by other ways is not seen in pages that are in memory already. A file that has become
 * shorter is noticed at the next read past its new end, or when something is written back.
 *
 * -EACCES: the descriptor does not allow it. -EINVAL: an argument, or the file is no regular one.
 * -EFBIG: it is larger than 1 TiB. -ESRCH: the process is not attached (it runs a program that was
 * executed since). -EOPNOTSUPP: the kernel can't (Linux 5.19). -ENOMEM, -EMFILE, or an error of the
 * connection as with upager_open().
 */
int upager_map_file(struct upager *upager, int fd, uint64_t offset, size_t length, unsigned flags,
		    int prot, size_t page_size_hint, void **ret);

/**
 * Unmaps pages, of any mapping: munmap(2). What was written to a shared mapping stays in the
 * daemon, which writes it back.
 */
int upager_unmap(struct upager *upager, void *address, size_t length);

enum upager_advice {
	/** Takes back SEQUENTIAL and RANDOM. Files. */
	UPAGER_NORMAL = 0,
	/** It will be read in order: the daemon reads far ahead. Files; counts for the whole of
	 * each mapping that the range touches. */
	UPAGER_SEQUENTIAL = 1,
	/** It will be read here and there: the daemon reads what is touched, no more. Files, as
	 * SEQUENTIAL. */
	UPAGER_RANDOM = 2,
	/** It won't be used for a while: clean pages of files leave now, for everybody; anonymous
	 * pages are the next to leave when memory is short. */
	UPAGER_COLD = 3,
	/** It will be used soon: the pages are brought in; the call returns when they are there. */
	UPAGER_WILLNEED = 4,
	/** It is not needed: anonymous pages and private copies are lost, and read as zeros, or as
	 * the file, afterwards (MADV_DONTNEED). A shared mapping loses nothing. */
	UPAGER_DONTNEED = 5,
};

/**
 * address: page aligned. length: rounded up to whole pages.
 *
 * -EINVAL: the address, an unknown advice, or no file is mapped there that the advice is for.
 * -ENOMEM: nothing is mapped there. -EFAULT, -EIO: WILLNEED met a page that cannot be read.
 */
int upager_advise(struct upager *upager, void *address, size_t length, enum upager_advice advice);

/**
 * Returns when everything that was written to shared mappings of files in the range, before the
 * call, is in the file (fdatasync(2)). Then it is there also if daemon or machine stop right after.
 *
 * -ENOMEM: no file is mapped in the range. -EIO, -ENOSPC, …: the file could not be written, and the
 * pages stay as they are; the daemon tries again. -ETIMEDOUT: the address space of one of the
 * processes that map it changed all the time.
 */
int upager_sync(struct upager *upager, void *address, size_t length);

/** What is known of the group and of the images, in bytes and events. */
struct upager_stat {
	uint64_t limit;    /**< of the group; 0: none */
	uint64_t resident; /**< anonymous memory of the group, with its overhead */
	uint64_t peak;     /**< the most that was ever seen */
	uint64_t evicted;  /**< resting with the daemon */
	uint64_t minor;    /**< pages that were given without I/O, since the group began */
	uint64_t major;    /**< pages that had to be read */
	uint64_t image_limit;    /**< `image_memory` of the daemon */
	uint64_t image_resident; /**< pages of files, of all programs */
	uint64_t image_dirty;    /**< of these, what is not in its file yet */
	uint64_t snapshot;       /**< size of the one of this process that is being written */
	uint64_t snapshot_copied; /**< of that, what has been copied out of memory, or read */
	uint64_t reserved[5];    /**< 0 */
};

/** -ESRCH: the process is not attached. */
int upager_stat(struct upager *upager, struct upager_stat *ret);

/**
 * Begins to write an image of the process's memory to a file, as it is at one moment, while the
 * process goes on: what fork() is used for to save in the background. It returns when that moment
 * has been. What any thread wrote before the call is in the image, what one writes after the return
 * is not, and it is one moment for all threads. Those that write to the memory wait until it has
 * been, about as long as for a fork(); afterwards one waits only at its first write to a page that
 * has not been copied yet, until it has been. The image is written by the daemon, and takes no
 * memory of the process's.
 *
 * What can be in it is what is paged: private anonymous memory, resident or evicted; not the main
 * thread's stack, mapped files, shared memory, reserved huge pages. Pages that are discarded or
 * unmapped (MADV_DONTNEED, munmap(), a free() that does so) before they have been copied are lost
 * to it, and zeros there; the result says how many. What a device writes to pages that are pinned
 * for it may be in it.
 *
 * fd: an empty regular file (a memfd, too), open for writing, without O_APPEND and O_DIRECT. It may
 *   be closed afterwards. The image is whole, and on the disk, when upager_snapshot_wait() returns
 *   0; until then the file is none. To replace an older one, write another file, and rename() it.
 * address, length: a range, page aligned; length is rounded up to whole pages, and at most 1 TiB.
 *   All of it must be memory that can be in the image, and in the file it is one piece, with holes
 *   where the memory was never written. NULL and 0: all memory that can be in it.
 * *ret: a descriptor that becomes readable (poll(2), POLLIN) when the snapshot has ended, one way
 *   or the other. close() it then; if the last copy is closed before, the snapshot is given up. It
 *   is closed in programs that are executed, and not in forked children.
 *
 * -EBUSY: one of this process is being made, or written. -EINVAL: the address, or the file.
 * -EBADF. -EFBIG: the length. -EFAULT: not all of the range is memory that can be in it.
 * -ETIMEDOUT: for two seconds the address space changed all the time. -ESRCH: the process is not
 * attached. -EOPNOTSUPP: the daemon can't evict its pages (before Linux 6.8). -ENOMEM, -EMFILE, or
 * an error of the connection as with upager_open().
 */
int upager_snapshot(struct upager *upager, int fd, const void *address, size_t length, int *ret);

struct upager_snapshot_result {
	uint64_t size;     /**< bytes of memory with content that are in it */
	uint64_t lost;     /**< of these, what was discarded before it was copied: zeros */
	uint64_t stall_ns; /**< nanoseconds for which who wrote to the memory waited for the moment */
	uint64_t reserved[5]; /**< 0 */
};

/**
 * Waits for the end of a snapshot, and says how it ended; as often as asked. poll() before it waits
 * with a timeout; upager_stat() tells how far it has come.
 *
 * snapshot: from upager_snapshot(). ret: may be NULL.
 *
 * -ENOSPC, -EIO, -EFBIG, …: the file could not be written. -ECANCELED: see below. -ETIMEDOUT: the
 * file took nothing for seconds while threads waited to write. -ECONNRESET: the daemon has gone.
 * -ENOMEM. -EAGAIN: it has not ended, and the descriptor was made O_NONBLOCK.
 */
int upager_snapshot_wait(int snapshot, struct upager_snapshot_result *ret);

/**
 * Gives up a snapshot, and does not wait for that: upager_snapshot_wait() then answers -ECANCELED,
 * or what it would have answered if the end came first. The file is left as it is.
 */
int upager_snapshot_cancel(int snapshot);

/** Bytes of an image that lie in the file as they lay in memory. All are multiples of 4096. */
struct upager_snapshot_piece {
	uint64_t address; /**< where they were in the memory of the process that was saved */
	uint64_t length;
	uint64_t offset; /**< where they are in the file: for upager_map_file(), mmap(), pread() */
};

/**
 * Where in a snapshot's file is the page of `address`? *ret begins with it, and goes as far as file
 * and memory go on alike. If the image does not have it (then it was empty: zeros), *ret is the
 * next piece above. From 0 on, and then from address + length on, that finds all of them.
 *
 * Needs no daemon. fd: open for reading.
 *
 * -ENOENT: there is nothing there, nor above. -EBADMSG: the file is no snapshot, or not a whole
 * one. -EIO, …
 */
int upager_snapshot_find(int fd, uint64_t address, struct upager_snapshot_piece *ret);

#ifdef __cplusplus
}
#endif

#endif
