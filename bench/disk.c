/*
 * What the disk allows: disk FILE READ WRITE reads so many bytes of a file and writes so many to
 * it, both in order, side by side, in large blocks round the page cache, several at a time. Prints
 * JSON.
 *
 * The file is there already, as large as either; its contents are lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "now.h"

#define BLOCK (512u << 10)
#define DEPTH 8u

struct stream {
	uint64_t blocks, issued;
	bool write;
};

static _Noreturn void die(const char *what, int error)
{
	fprintf(stderr, "disk: %s: %s\n", what, strerror(error));
	exit(2);
}

static uint64_t blocks_of(const char *text)
{
	uint64_t size;

	if (size_parse(text, &size) < 0)
		die(text, EINVAL);
	return (size + BLOCK - 1) / BLOCK;
}

/* The one that is behind: both end together. */
static struct stream *behind(struct stream streams[2])
{
	return streams[0].issued * streams[1].blocks <= streams[1].issued * streams[0].blocks &&
		       streams[0].issued < streams[0].blocks
		   ? &streams[0]
		   : &streams[1];
}

static void issue(struct io_uring *ring, int file, struct stream *stream, char *buffer)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	uint64_t offset = stream->issued++ * BLOCK;

	if (stream->write)
		io_uring_prep_write(sqe, file, buffer, BLOCK, offset);
	else
		io_uring_prep_read(sqe, file, buffer, BLOCK, offset);
	io_uring_sqe_set_data(sqe, buffer);
}

static void transfer(int file, struct stream streams[2], char *buffers)
{
	uint64_t left = streams[0].blocks + streams[1].blocks, issued = 0;
	struct io_uring ring;
	int r = io_uring_queue_init(DEPTH, &ring, 0);

	if (r < 0)
		die("no io_uring", -r);
	for (uint64_t total = left; issued < DEPTH && issued < total; issued++)
		issue(&ring, file, behind(streams), buffers + issued * BLOCK);
	for (uint64_t unissued = left - issued; left; left--) {
		struct io_uring_cqe *cqe;
		char *buffer;

		r = io_uring_submit_and_wait(&ring, 1);
		if (r >= 0)
			r = io_uring_peek_cqe(&ring, &cqe);
		if (r < 0)
			die("io_uring", -r);
		if (cqe->res != BLOCK)
			die("I/O", cqe->res < 0 ? -cqe->res : EIO);
		buffer = io_uring_cqe_get_data(cqe);
		io_uring_cqe_seen(&ring, cqe);
		if (unissued) {
			issue(&ring, file, behind(streams), buffer);
			unissued--;
		}
	}
	io_uring_queue_exit(&ring);
}

int main(int argc, char **argv)
{
	struct stream streams[2] = {};
	uint64_t started, random = 1;
	char *buffers;
	int file;

	if (argc != 4) {
		fputs("usage: disk FILE READ WRITE\n", stderr);
		return 2;
	}
	streams[0].blocks = blocks_of(argv[2]);
	streams[1] = (struct stream){.blocks = blocks_of(argv[3]), .write = true};
	file = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (file < 0)
		die(argv[1], errno);
	buffers = aligned_alloc(4096, (size_t)DEPTH * BLOCK);
	if (!buffers)
		die("no memory", ENOMEM);
	for (size_t i = 0; i < (size_t)DEPTH * BLOCK; i += 8)
		*(uint64_t *)(buffers + i) = next_random(&random);
	started = now_ns();
	transfer(file, streams, buffers);
	printf("{\"ns\": %" PRIu64 ", \"read\": %" PRIu64 ", \"written\": %" PRIu64 "}\n",
	       now_ns() - started, streams[0].blocks * BLOCK, streams[1].blocks * BLOCK);
	return 0;
}
