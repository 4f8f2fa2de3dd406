/* The public library: snapshots. A snapshot's descriptor is the connection on which it was asked for. */
#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "connect.h"
#include "proto/snapshot.h"
#include "request.h"
#include "upager/upager.h"

int upager_snapshot(struct upager *upager, int fd, const void *address, size_t length, int *ret)
{
	int r, socket;

	if (fd < 0)
		return -EBADF;
	if ((address && !length) || length > SIZE_MAX - PAGE)
		return -EINVAL;
	socket = daemon_connect(&upager->address, NULL, NULL);
	if (socket < 0)
		return request_explain(socket);
	r = request_range(socket, SESSION_SNAPSHOT, address, length, SESSION_ADVICE_NORMAL, fd);
	if (r < 0) {
		close(socket);
		return request_explain(r);
	}
	*ret = socket;
	return 0;
}

/* The message stays where it is, for whoever else waits. */
int upager_snapshot_wait(int snapshot, struct upager_snapshot_result *ret)
{
	struct session_ended ended;
	ssize_t n;

	do /* a cancel that came too late resets the connection; what was said before is still there */
		n = recv(snapshot, &ended, sizeof(ended), MSG_PEEK);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n <= 0)
		return n < 0 ? -errno : -ECONNRESET;
	if (n != sizeof(ended) || ended.header.magic != SESSION_MAGIC ||
	    ended.header.type != SESSION_ENDED)
		return -EPROTO;
	if (ended.status < 0)
		return ended.status;
	if (ret)
		*ret = (struct upager_snapshot_result){
			.size = ended.size,
			.lost = ended.lost,
			.stall_ns = ended.stall_ns,
		};
	return 0;
}

int upager_snapshot_cancel(int snapshot)
{
	struct session_cancel cancel;
	int r;

	session_header_init(&cancel.header, SESSION_CANCEL);
	r = session_send(snapshot, &cancel, sizeof(cancel), NULL, 0);
	/* It has ended. */
	return r == -EPIPE || r == -ECONNRESET ? 0 : request_explain(r);
}

/* ---- the file ---- */

static int read_at(int fd, void *to, size_t size, uint64_t offset)
{
	ssize_t n = pread(fd, to, size, (off_t)offset);

	return n < 0 ? -errno : (size_t)n < size ? -EBADMSG : 0;
}

int upager_snapshot_find(int fd, uint64_t address, struct upager_snapshot_piece *ret)
{
	struct snapshot_header header;
	struct snapshot_run run, found = {0};
	uint64_t low = 0, high, skipped;
	int r = read_at(fd, &header, sizeof(header), 0);

	if (r < 0)
		return r;
	if (header.magic != SNAPSHOT_MAGIC || header.version != SNAPSHOT_VERSION)
		return -EBADMSG;
	address &= ~(PAGE - 1);
	for (high = header.n_runs; low < high;) {
		uint64_t middle = low + (high - low) / 2;

		r = read_at(fd, &run, sizeof(run), sizeof(header) + middle * sizeof(run));
		if (r < 0)
			return r;
		if (run.address + run.length <= address) {
			low = middle + 1;
		} else {
			found = run;
			high = middle;
		}
	}
	if (!found.length)
		return -ENOENT;
	skipped = address > found.address ? address - found.address : 0;
	*ret = (struct upager_snapshot_piece){
		.address = found.address + skipped,
		.length = found.length - skipped,
		.offset = found.offset + skipped,
	};
	return 0;
}
