/* What happens before the daemon serves anybody: preflight, swap files, sockets, directories. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "failure.h"
#include "listen.h"
#include "pager/pager.h"
#include "preflight.h"
#include "remove.h"
#include "runtime.h"
#include "swapfile.h"

static char dir[32];
static struct failure failure;

static void setup(void)
{
	strcpy(dir, "/dev/shm/test-XXXXXX");
	cr_assert(mkdtemp(dir));
}

static void teardown(void)
{
	remove_tree(AT_FDCWD, dir);
}

TestSuite(start, .init = setup, .fini = teardown);

static const char *in_dir(const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, 128, "%s/%s", dir, name);
	return path;
}

static void expect_failure(int r, int expected, const char *part)
{
	cr_expect_eq(r, expected, "%d", r);
	cr_expect(strstr(failure.text, part), "\"%s\" is not in \"%s\"", part, failure.text);
}

Test(start, userfaultfd)
{
	cr_expect_eq(preflight_userfaultfd(0, -EPERM, &failure), 0);
	cr_expect_eq(preflight_userfaultfd(-ENOENT, 0, &failure), 0);
	expect_failure(preflight_userfaultfd(-ENOENT, -ENOSYS, &failure), -ENOSYS,
		       "Linux 5.7 or newer is needed, built with CONFIG_USERFAULTFD");
	expect_failure(preflight_userfaultfd(-ENOENT, -EPERM, &failure), -EPERM,
		       "vm.unprivileged_userfaultfd");
	expect_failure(preflight_userfaultfd(-EACCES, -EPERM, &failure), -EPERM,
		       "access to /dev/userfaultfd");
}

Test(start, io_uring)
{
	cr_expect_eq(preflight_io_uring(-EFAULT, -1, &failure), 0);
	expect_failure(preflight_io_uring(-ENOSYS, -1, &failure), -ENOSYS, "CONFIG_IO_URING");
	expect_failure(preflight_io_uring(-EPERM, 2, &failure), -EPERM,
		       "set kernel.io_uring_disabled to 0 (sysctl; it is 2)");
	expect_failure(preflight_io_uring(-EPERM, 0, &failure), -EPERM, "seccomp");
}

Test(start, pager_errors_are_explained)
{
	expect_failure(preflight_explain(-EOPNOTSUPP, "UFFD_FEATURE_X", &failure), -EOPNOTSUPP,
		       "this kernel lacks UFFD_FEATURE_X");
	expect_failure(preflight_explain(-ENOSPC, "/swap", &failure), -ENOSPC,
		       "/swap: No space left on device");
	expect_failure(preflight_explain(-ENOMEM, NULL, &failure), -ENOMEM,
		       "can't start the pager: Cannot allocate memory");
}

static int check(const char *path, uint64_t size, bool create, bool *ret_missing)
{
	struct pager_swap swap = {.path = path, .size = size, .create = create};

	return swapfile_check(&swap, 1, ret_missing, &failure);
}

static const char *make_file(const char *name, off_t size)
{
	const char *path = in_dir(name);
	int fd = open(path, O_CREAT | O_RDWR, 0600);

	cr_assert(fd >= 0 && ftruncate(fd, size) == 0);
	close(fd);
	return path;
}

Test(start, swap_files)
{
	bool missing;

	cr_expect_eq(check(in_dir("new"), 1 << 20, true, &missing), 0);
	cr_expect(missing);
	cr_expect_eq(check(make_file("old", 1 << 20), 0, false, &missing), 0);
	cr_expect_not(missing);
	expect_failure(check(in_dir("new"), 1 << 20, false, &missing), -ENOENT, "\"create\": true");
	expect_failure(check(in_dir("new"), 0, true, &missing), -EINVAL,
		       "0 B is too small, at least 1 MiB is needed");
	expect_failure(check(in_dir("new"), 4096, true, &missing), -EINVAL, "swap[0].size: ");
	expect_failure(check(make_file("tiny", 4096), 0, true, &missing), -EINVAL,
		       "4 KiB is too small");
	expect_failure(check(dir, 1 << 20, true, &missing), -EINVAL,
		       "neither a regular file nor a block device");
	expect_failure(check("/dev/null", 1 << 20, true, &missing), -EINVAL,
		       "neither a regular file nor a block device");
	expect_failure(check(in_dir("no/such/dir"), 1 << 20, true, &missing), -ENOENT,
		       "can't make it");
}

Test(start, swap_file_that_cannot_be_written)
{
	const char *path = make_file("theirs", 1 << 20);
	bool missing;

	if (geteuid() == 0) {
		cr_assert_eq(chmod(dir, 0755), 0);
		cr_assert_eq(seteuid(65534), 0);
	} else {
		cr_assert_eq(chmod(path, 0400), 0);
	}
	expect_failure(check(path, 0, true, &missing), -EACCES,
		       "can't be written: Permission denied");
	if (geteuid() == 65534) {
		expect_failure(check(in_dir("new"), 1 << 20, true, &missing), -EACCES,
			       "can't make it");
		cr_assert_eq(seteuid(0), 0);
	}
}

Test(start, swap_files_twice_the_same)
{
	struct pager_swap swaps[2] = {{.path = make_file("a", 1 << 20)}, {.path = in_dir("b")}};
	bool missing[2];

	cr_assert_eq(symlink(swaps[0].path, swaps[1].path), 0);
	expect_failure(swapfile_check(swaps, 2, missing, &failure), -EINVAL, "swap[1].path: ");
	expect_failure(-EINVAL, -EINVAL, "is swap[0] already");
}

Test(start, preallocation_needs_room)
{
	struct pager_swap swap = {
	    .path = in_dir("huge"), .size = UINT64_C(1) << 60, .create = true, .preallocate = true};
	bool missing;

	expect_failure(swapfile_check(&swap, 1, &missing, &failure), -ENOSPC, "has ");
}

Test(start, sockets)
{
	const char *path = in_dir("sock");
	char expected[64];
	struct stat st;
	int fd = listen_bind(path, SOCK_STREAM, &failure);

	cr_assert_geq(fd, 0);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0666);
	cr_assert_eq(listen(fd, 1), 0);
	snprintf(expected, sizeof(expected), "another upagerd (pid %d) listens on", getpid());
	expect_failure(listen_bind(path, SOCK_STREAM, &failure), -EADDRINUSE, expected);
	close(fd); /* it died: the socket stays */
	fd = listen_bind(path, SOCK_STREAM, &failure);
	cr_expect_geq(fd, 0);
	close(fd);
	expect_failure(listen_bind(make_file("file", 0), SOCK_STREAM, &failure), -EEXIST,
		       "exists and is not a socket");
	expect_failure(listen_bind("/dev/shm/no/such/dir/sock", SOCK_STREAM, &failure), -ENOENT,
		       "can't make the socket");
}

Test(start, socket_path_too_long)
{
	char path[160];

	snprintf(path, sizeof(path), "/%0120d", 0);
	expect_failure(listen_bind(path, SOCK_STREAM, &failure), -ENAMETOOLONG,
		       "at most 107 bytes");
}

Test(start, runtime_on_tmpfs)
{
	struct runtime runtime, second;
	struct stat st;

	cr_assert_eq(runtime_open(&runtime, in_dir("run/sock"), NULL, dir, &failure), 0, "%s",
		     failure.text);
	cr_assert_eq(stat(in_dir("run"), &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0711);
	cr_expect_str_eq(runtime.session, in_dir("run/sock.session"));
	cr_expect_str_eq(runtime.state, in_dir("run/state"));
	cr_assert_eq(stat(runtime.state, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0700);
	expect_failure(runtime_open(&second, in_dir("run/sock"), NULL, dir, &failure), -EADDRINUSE,
		       "another upagerd (pid ");
	runtime_close(&second);
	cr_expect_eq(access(in_dir("run/sock.lock"), F_OK), 0);
	runtime_close(&runtime);
	cr_expect_lt(access(in_dir("run"), F_OK), 0);
}

Test(start, runtime_elsewhere)
{
	char disk[] = "/var/tmp/test-XXXXXX", path[64];
	struct runtime runtime;

	cr_assert(mkdtemp(disk));
	snprintf(path, sizeof(path), "%s/sock", disk);
	cr_assert_eq(runtime_open(&runtime, path, NULL, dir, &failure), 0, "%s", failure.text);
	if (*runtime.private_dir)
		cr_expect_eq(strncmp(runtime.state, dir, strlen(dir)), 0, "%s", runtime.state);
	runtime_close(&runtime);
	cr_expect_eq(rmdir(disk), 0); /* empty, and not ours to remove */
	cr_expect_eq(rmdir(dir), 0);
	cr_assert_eq(mkdir(dir, 0700), 0);
}

/* A daemon that dies in its private directory, with a swap file outside it. */
static void crash(const char *swap)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct runtime runtime;

		if (runtime_open(&runtime, NULL, NULL, dir, &failure) < 0 ||
		    runtime_add_leftover(&runtime, swap) < 0)
			_exit(1);
		_exit(0);
	}
	int status;

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

Test(start, crashes_are_swept)
{
	const char *swap = make_file("swap", 1 << 20), *kept = make_file("kept", 1 << 20);
	struct runtime alive;

	cr_assert_eq(runtime_open(&alive, NULL, NULL, dir, &failure), 0);
	cr_expect_eq(runtime_add_leftover(&alive, kept), 0);
	crash(swap);
	cr_expect_eq(access(swap, F_OK), 0);
	cr_expect_eq(runtime_sweep(dir), 1);
	cr_expect_lt(access(swap, F_OK), 0);
	cr_expect_eq(access(kept, F_OK), 0);
	cr_expect_eq(access(alive.state, F_OK), 0);
	cr_expect_eq(runtime_sweep(dir), 0);
	runtime_close(&alive);
	cr_expect_lt(access(alive.private_dir, F_OK), 0);
}

/* The file that was noted is gone, another has its name: not ours to remove. */
Test(start, sweep_removes_only_what_was_noted)
{
	const char *swap = make_file("swap", 1 << 20), *aside = in_dir("aside");

	crash(swap);
	cr_assert_eq(rename(swap, aside), 0);
	make_file("swap", 1);
	cr_expect_eq(runtime_sweep(dir), 1);
	cr_expect_eq(access(in_dir("swap"), F_OK), 0);
}

/* A directory without a lock may be one that is just being made. */
static void *sweeps(void *stop)
{
	while (!atomic_load((atomic_bool *)stop))
		runtime_sweep(dir);
	return NULL;
}

/* Daemons that start beside each other sweep what the others are just making. */
Test(start, sweep_spares_who_is_starting)
{
	static atomic_bool stop;
	pthread_t sweeper[2];

	for (size_t i = 0; i < ARRAY_SIZE(sweeper); i++)
		cr_assert_eq(pthread_create(&sweeper[i], NULL, sweeps, &stop), 0);
	for (unsigned i = 0; i < 2000; i++) {
		struct runtime runtime = {0};

		cr_assert_eq(runtime_open(&runtime, NULL, NULL, dir, &failure), 0, "%u: %s", i,
			     failure.text);
		cr_assert_eq(access(runtime.state, F_OK), 0, "%u: it was swept", i);
		runtime_close(&runtime);
	}
	atomic_store(&stop, true);
	for (size_t i = 0; i < ARRAY_SIZE(sweeper); i++)
		pthread_join(sweeper[i], NULL);
}

Test(start, sweep_waits_for_young_directories)
{
	const struct timespec old[2] = {{1, 0}, {1, 0}};

	cr_assert_eq(mkdir(in_dir("upager-1-abcdef"), 0700), 0);
	cr_expect_eq(runtime_sweep(dir), 0);
	cr_assert_eq(utimensat(AT_FDCWD, in_dir("upager-1-abcdef"), old, 0), 0);
	cr_expect_eq(runtime_sweep(dir), 1);
}
