/* Savers: how a snapshot begins and ends. */
#include "saver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int try(int file, const void *address, size_t length)
{
	int snapshot, r = upager_snapshot(pager, file, address, length, &snapshot);

	if (r == 0) {
		ok(upager_snapshot_wait(snapshot, NULL), "upager_snapshot_wait");
		close(snapshot);
	}
	return r;
}

static bool is_readable(int fd, int timeout)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, timeout) == 1 && poll_fd.revents & POLLIN;
}

/* ---- arguments ---- */

static void files_that_are_none(void)
{
	int pipes[2], file = new_file(), used = new_file();
	char path[32];

	must(pipe(pipes) == 0 && write(used, "x", 1) == 1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	fails(try(pipes[1], NULL, 0), EINVAL, "a pipe");
	fails(try(used, NULL, 0), EINVAL, "a file with something in it");
	fails(try(open(path, O_RDONLY | O_CLOEXEC), NULL, 0), EINVAL, "one that is read");
	fails(try(open(path, O_RDWR | O_APPEND | O_CLOEXEC), NULL, 0), EINVAL, "one that is appended to");
	fails(try(open("/dev/null", O_RDWR | O_CLOEXEC), NULL, 0), EINVAL, "a device");
	fails(try(-1, NULL, 0), EBADF, "no descriptor");
	fails(try(12345, NULL, 0), EBADF, "a descriptor that is not open");
	ok(try(file, NULL, 0), "none of them did anything to it");
	fails(try(file, NULL, 0), EINVAL, "it has something in it now");
}

static void ranges_that_are_none(void)
{
	size_t length = area.pages * PAGE;
	struct upager_snapshot_piece piece;
	int file = new_file(), on_stack;
	char *shared = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	fails(try(file, area.at + 1, PAGE), EINVAL, "not aligned");
	fails(try(file, area.at, 0), EINVAL, "empty");
	fails(try(file, area.at, SIZE_MAX), EINVAL, "too long for anything");
	fails(try(file, area.at, 2ul << 40), EFBIG, "too long");
	fails(try(file, NULL, PAGE), EFAULT, "nothing is there");
	fails(try(file, (void *)(~0ul << 20), PAGE), EINVAL, "the kernel's");
	fails(try(file, shared, length), EFAULT, "shared memory");
	fails(try(file, (void *)((uintptr_t)&on_stack & ~(PAGE - 1)), PAGE), EFAULT, "the main stack");
	must(munmap(page_at(&area, 7), PAGE) == 0);
	fails(try(file, area.at, length), EFAULT, "a hole");
	must(lseek(file, 0, SEEK_END) == 0);
	fails(upager_snapshot_find(file, 0, &piece), EBADMSG, "an empty file");
	ok(try(file, page_at(&area, 8), PAGE - 1), "a page");
	ok(upager_snapshot_find(file, 0, &piece), "upager_snapshot_find");
	must(piece.address == (uintptr_t)page_at(&area, 8) && piece.length == PAGE);
	must(pwrite(file, "bad", 3, 0) == 3);
	fails(upager_snapshot_find(file, 0, &piece), EBADMSG, "not an image");
}

/* Only holes, and it is as long as the range. */
static void nothing_at_all(void)
{
	struct image image;

	must(madvise(area.at, area.pages * PAGE, MADV_DONTNEED) == 0);
	image = begin_area();
	finish(&image);
	must(!image.result.size && !image.result.lost);
	for (size_t i = 0; i < area.pages; i++)
		must(image_has(&image, i, 0));
	drop(&image);
}

/* ---- one at a time, and how to wait for it ---- */

static void second_is_refused(void)
{
	struct image first = begin_area();
	struct upager_stat stat;
	int file = new_file();
	uint64_t copied = 0;

	fails(try(file, area.at, PAGE), EBUSY, "a second one");
	must(!is_readable(first.snapshot, 0));
	while (!is_readable(first.snapshot, 1)) {
		ok(upager_stat(pager, &stat), "upager_stat");
		if (!stat.snapshot) /* it has just ended */
			continue;
		must(stat.snapshot >= area.pages * PAGE && stat.snapshot_copied <= stat.snapshot);
		must(stat.snapshot_copied >= copied);
		copied = stat.snapshot_copied;
	}
	finish(&first);
	image_check(&first);
	must(first.result.size == area.pages * PAGE && first.result.stall_ns);
	ok(upager_snapshot_wait(first.snapshot, NULL), "a second wait");
	ok(upager_snapshot_cancel(first.snapshot), "a cancel that comes too late");
	ok(upager_snapshot_wait(first.snapshot, NULL), "a wait after it");
	ok(upager_stat(pager, &stat), "upager_stat");
	must(!stat.snapshot && !stat.snapshot_copied);
	ok(try(file, area.at, PAGE), "the second one, now");
	drop(&first);
}

static void cancelled(void)
{
	struct image image;
	int r, file = new_file();

	for (unsigned i = 0; i < 20; i++) {
		image = begin_area();
		ok(upager_snapshot_cancel(image.snapshot), "upager_snapshot_cancel");
		fails(upager_snapshot_wait(image.snapshot, NULL), ECANCELED, "a cancelled one");
		must(is_readable(image.snapshot, 0));
		ok(upager_snapshot_cancel(image.snapshot), "once more");
		drop(&image);
	}
	image = begin_area();
	drop(&image); /* the daemon has not heard of it yet */
	while ((r = try(file, area.at, area.pages * PAGE)) == -EBUSY)
		usleep(1000);
	ok(r, "after one that was dropped");
	area_check(&area);
}

/* ---- how it ends otherwise ---- */

static void no_room(void)
{
	const char *folder = getenv("SAVER_SMALL");
	struct image image;
	int file, snapshot;

	must(folder);
	for (unsigned i = 0; i < 3; i++) {
		file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		must(file >= 0);
		ok(upager_snapshot(pager, file, area.at, area.pages * PAGE, &snapshot), "upager_snapshot");
		area.salt += 1000;
		area_fill(&area);
		fails(upager_snapshot_wait(snapshot, NULL), ENOSPC, "no room");
		close(snapshot);
		close(file);
	}
	image = begin_area();
	finish(&image);
	image_check(&image);
	drop(&image);
	area_check(&area);
}

static void exits(void)
{
	begin_area();
}

static void killed(void)
{
	begin_area();
	raise(SIGKILL);
}

/* Without a daemon nothing that is touched for the first time is answered: so all that is needed then has
 * been called before. */
static void daemon_killed(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;
	struct ucred daemon;
	socklen_t size = sizeof(daemon);
	struct image image = begin(area.at, PAGE);

	dprintf(STDOUT_FILENO, "first %d\n", upager_snapshot_wait(image.snapshot, NULL));
	drop(&image);
	strcpy(address.sun_path, getenv("UPAGER_SOCKET"));
	must(connect(control, (struct sockaddr *)&address, sizeof(address)) == 0);
	must(getsockopt(control, SOL_SOCKET, SO_PEERCRED, &daemon, &size) == 0);
	image = begin_area();
	kill(daemon.pid, SIGKILL);
	r = upager_snapshot_wait(image.snapshot, NULL);
	dprintf(STDOUT_FILENO, "wait %d\n", r);
	r = upager_snapshot(pager, image.file, area.at, PAGE, &image.snapshot);
	dprintf(STDOUT_FILENO, "again %d\n", r);
}

/* ---- children ---- */

/* One of a child, at once; one of the parent meanwhile, whose end the child hears of, too. */
static void children(void)
{
	struct image mine = begin_area();
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid) {
		struct image its = begin_area();

		area.salt++;
		area_fill(&area);
		area.salt--;
		finish(&its);
		image_check(&its);
		ok(upager_snapshot_wait(mine.snapshot, NULL), "the parent's");
		_exit(0);
	}
	finish(&mine);
	image_check(&mine);
	await(pid);
	drop(&mine);
	area_check(&area);
}

/* Just attached: its agents may not be there yet. */
static void at_once(void)
{
	struct image image = begin_area();

	finish(&image);
	image_check(&image);
	drop(&image);
}

const struct behaviour end_savers[] = {
	{"files_that_are_none", files_that_are_none},
	{"ranges_that_are_none", ranges_that_are_none},
	{"nothing_at_all", nothing_at_all},
	{"second_is_refused", second_is_refused},
	{"cancelled", cancelled},
	{"no_room", no_room},
	{"exits", exits},
	{"killed", killed},
	{"daemon_killed", daemon_killed},
	{"children", children},
	{"at_once", at_once},
	{0},
};
