/* The handshake, who may make which call, and what can be registered. */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/uio.h>

#include "kernel.h"

TestSuite(api, .timeout = 20);

#define NOBODY 65534

/* ---- the handshake (sys/uffd.c: uffd_handshake) ---- */

/* The features are asked for from the newest set to the oldest, on the same descriptor. */
Test(api, after_an_unknown_feature_the_handshake_may_be_repeated)
{
	int uffd = uffd_unshaken(O_CLOEXEC);

	is_eq(uffd_api(uffd, 1ull << 62), -EINVAL);
	is_eq(uffd_api(uffd, WP), 0);
	is_eq(uffd_api(uffd, WP), -EINVAL); /* and after a good one it may not */
}

/* Even one that was asked for nothing tells of everything. */
Test(api, the_answer_lists_the_features_of_the_kernel)
{
	uint64_t required = EVENTS | WP | UFFD_FEATURE_THREAD_ID;

	is_eq(uffd_has() & required, required);
}

Test(api, before_the_handshake_every_call_fails)
{
	int uffd = uffd_unshaken(O_CLOEXEC | O_NONBLOCK);
	struct uffd_msg m;
	char *at = region(1);

	is_eq(reg(uffd, at, PAGE, MODE_M), -EINVAL);
	is_eq(wake(uffd, at, PAGE), -EINVAL);
	is_eq(err(read(uffd, &m, sizeof(m))), -EINVAL);
}

static short polled(int uffd)
{
	struct pollfd fd = {.fd = uffd, .events = POLLIN};

	poll(&fd, 1, 0);
	return fd.revents;
}

/* sys/uffd.c opens it O_NONBLOCK; sys/nowait.h is for clients that take the flag away. */
Test(api, a_blocking_uffd_polls_as_an_error)
{
	int uffd = uffd_unshaken(O_CLOEXEC);

	is_eq(uffd_api(uffd, 0), 0);
	is_eq(polled(uffd), POLLERR);
	is_eq(fcntl(uffd, F_SETFL, O_NONBLOCK), 0);
	is_eq(polled(uffd), 0);
	is_eq(fcntl(uffd, F_SETFL, 0), 0);
	is_eq(polled(uffd), POLLERR);
}

/* sys/nowait.c */
Test(api, preadv2_with_nowait_never_blocks_whatever_the_flags)
{
	struct uffd_msg m;
	struct iovec iov = {.iov_base = &m, .iov_len = sizeof(m)};
	int uffd = uffd_unshaken(O_CLOEXEC);
	long r;

	is_eq(uffd_api(uffd, 0), 0);
	r = err(preadv2(uffd, &iov, 1, -1, RWF_NOWAIT));
	if (r == -EOPNOTSUPP || r == -EINVAL || r == -ESPIPE)
		cr_skip_test("this kernel has no RWF_NOWAIT for a uffd: %s", strerror((int)-r));
	is_eq(r, -EAGAIN);
}

Test(api, a_read_takes_whole_messages_and_as_many_as_fit)
{
	struct uffd_msg m[4];
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 3);
	struct deed d[3];

	is_eq(sizeof(m[0]), 32);
	is_eq(err(read(uffd, m, sizeof(m))), -EAGAIN);
	for (int i = 0; i < 3; i++)
		deed_read(&d[i], at + (size_t)i * PAGE);
	faults_pending(uffd, 3);
	is_eq(err(read(uffd, m, 31)), -EINVAL);
	is_eq(err(read(uffd, m, sizeof(m))), 3 * 32);
	is_eq(err(read(uffd, m, sizeof(m))), -EAGAIN);
	is_eq(zero_in(uffd, at, 3 * PAGE, 0), 3 * PAGE);
	for (int i = 0; i < 3; i++)
		is_eq(deed_end(&d[i]), 0);
}

/* ---- who may do what ---- */

/* A client without privileges: it makes a uffd from the device that it was given, and has memory
 * that was mapped before. */
static int unprivileged_client(void *argument)
{
	struct turns *turns = argument;
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
		return 3;
	turns->fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	turns->value[0] = uffd_api(turns->fd, UFFD_FEATURE_EVENT_FORK);
	turn_set(turns, 1);
	turn_wait(turns, 2);
	return *(volatile char *)turns->at;
}

static struct turns *client_turns(pid_t *ret_pid, int (*function)(void *argument), int *ret_uffd)
{
	struct turns *turns = turns_new();

	turns->at = region(4);
	*ret_pid = child_new(function, turns);
	turn_wait(turns, 1);
	*ret_uffd = fd_of(*ret_pid, turns->fd);
	return turns;
}

/* daemon/sessions.c hands over the device; session.c makes the handshake for the client. */
Test(api, the_right_to_fork_events_is_that_of_who_makes_the_handshake)
{
	struct turns *turns;
	pid_t pid;
	int uffd;

	close(uffd_unshaken(O_CLOEXEC));
	if (access("/dev/userfaultfd", R_OK | W_OK))
		cr_skip_test("there is no /dev/userfaultfd, or it may not be opened");
	turns = client_turns(&pid, unprivileged_client, &uffd);
	is_eq(turns->value[0], -EPERM);
	is_eq(uffd_api(uffd, UFFD_FEATURE_EVENT_FORK), 0);
	/* It is the uffd of who made it, not of who opened the device. */
	is_eq(reg(uffd, turns->at, PAGE, MODE_M), 0);
	turn_set(turns, 2);
	fault(uffd, turns->at, F_READ);
	is_eq(copy_in(uffd, turns->at, page_of(7), PAGE, 0), PAGE);
	is_eq(child_end(pid), 7);
}

static int client(void *argument)
{
	struct turns *turns = argument;

	turns->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	turn_set(turns, 1);
	turn_wait(turns, 2);
	for (int i = 0; i < 3; i++)
		turns->value[i] = turns->at[(size_t)i * PAGE];
	return 0;
}

/* pager/: all but MOVE is done from the daemon. */
Test(api, memory_is_served_from_another_process)
{
	uint64_t has = uffd_has();
	struct turns *turns;
	pid_t pid;
	int uffd;

	turns = client_turns(&pid, client, &uffd);
	is_eq(uffd_api(uffd, WP), 0);
	is_eq(reg(uffd, turns->at, 4 * PAGE, MODE_MW), 0);
	is_eq(copy_in(uffd, turns->at, page_of(1), PAGE, UFFDIO_COPY_MODE_WP), PAGE);
	is_eq(entry_of(pid, turns->at) & PM_WP, PM_WP);
	is_eq(unprotect(uffd, turns->at, PAGE), 0);
	is_eq(protect(uffd, turns->at, PAGE), 0);
	is_eq(zero_in(uffd, turns->at + PAGE, PAGE, 0), PAGE);
	turn_set(turns, 2);
	fault(uffd, turns->at + 2 * PAGE, F_READ);
	is_eq(copy_in(uffd, turns->at + 2 * PAGE, page_of(3), PAGE, UFFDIO_COPY_MODE_DONTWAKE),
	      PAGE);
	if (has & UFFD_FEATURE_POISON)
		is_eq(poison(uffd, turns->at + 3 * PAGE, PAGE), PAGE);
	is_eq(wake(uffd, turns->at + 2 * PAGE, PAGE), 0);
	is_eq(child_end(pid), 0);
	is_eq(turns->value[0], 1);
	is_eq(turns->value[1], 0);
	is_eq(turns->value[2], 3);
}

/* client/agent.c is there because of these two. */
Test(api, move_works_on_the_callers_own_memory_only)
{
	struct turns *turns;
	pid_t pid;
	int uffd;

	close(uffd_new(UFFD_FEATURE_MOVE));
	turns = client_turns(&pid, client, &uffd);
	is_eq(uffd_api(uffd, WP | UFFD_FEATURE_MOVE), 0);
	is_eq(reg(uffd, turns->at, 4 * PAGE, MODE_MW), 0);
	is_eq(copy_in(uffd, turns->at, page_of(1), PAGE, 0), PAGE);
	is_eq(move(uffd, turns->at + PAGE, turns->at, PAGE), -EINVAL);
	is_eq(entry_of(pid, turns->at) & PM_PRESENT, PM_PRESENT);
	kill(pid, SIGKILL);
}

Test(api, discarding_works_on_the_callers_own_memory_only)
{
	struct turns *turns;
	struct iovec iov;
	int uffd, pidfd;
	pid_t pid;

	close(uffd_unshaken(O_CLOEXEC));
	turns = client_turns(&pid, client, &uffd);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	iov = (struct iovec){.iov_base = turns->at, .iov_len = PAGE};
	is_eq(err(syscall(SYS_process_madvise, pidfd, &iov, 1, MADV_DONTNEED, 0)), -EINVAL);
	kill(pid, SIGKILL);
}

/* A program's system calls on memory that is out must not fail: so USER_MODE_ONLY is no substitute
 * for privilege. */
static void reads_into_missing(int flags, long expected)
{
	int uffd = uffd_unshaken(flags | O_CLOEXEC | O_NONBLOCK);
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct deed d;
	char *at;

	is_eq(uffd_api(uffd, WP), 0);
	at = registered(uffd, 1);
	deed_call(&d, SYS_read, zero, at, 16);
	if (expected > 0) {
		fault(uffd, at, F_WRITE);
		is_eq(copy_in(uffd, at, page_of('x'), PAGE, 0), PAGE);
	}
	is_eq(deed_end(&d), expected);
	silent(uffd);
	if (expected > 0) {
		is_eq(at[0], 0);
		is_eq(at[16], 'x');
	}
}

Test(api, a_system_call_that_touches_a_missing_page_waits)
{
	reads_into_missing(0, 16);
}

Test(api, with_user_mode_only_a_system_call_gets_efault)
{
	reads_into_missing(UFFD_USER_MODE_ONLY, -EFAULT);
}

/* ---- registration (pager/adopt.c) ---- */

Test(api, register_may_be_repeated_and_one_uffd_has_a_mapping)
{
	int uffd = uffd_new(WP), other = uffd_new(WP);
	char *at = registered(uffd, 2);

	is_eq(reg(uffd, at, 2 * PAGE, MODE_MW), 0);
	is_eq(reg(other, at, PAGE, MODE_MW), -EBUSY);
}

/* Mappings change while they are being registered. */
Test(api, register_tolerates_holes_and_needs_one_mapping)
{
	int uffd = uffd_new(WP);
	char *at = region(4);
	struct deed d;

	is_eq(munmap(at + PAGE, 2 * PAGE), 0);
	is_eq(reg(uffd, at, 4 * PAGE, MODE_MW), 0);
	deed_read(&d, at + 3 * PAGE);
	fault(uffd, at + 3 * PAGE, F_READ);
	is_eq(zero_in(uffd, at + 3 * PAGE, PAGE, 0), PAGE);
	deed_end(&d);
	is_eq(munmap(at, PAGE), 0);
	is_eq(reg(uffd, at, 3 * PAGE, MODE_MW), -EINVAL);
}

Test(api, what_private_anonymous_memory_can_be_registered)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, uffd = uffd_new(WP);
	char *none = mmap(NULL, PAGE, PROT_NONE, flags | MAP_NORESERVE, -1, 0);
	char *read_only = mmap(NULL, PAGE, PROT_READ, flags, -1, 0);
	char *grows = mmap(NULL, PAGE, RW, flags | MAP_GROWSDOWN, -1, 0);
	char *locked = region(1);

	is_eq(err(mlock(locked, PAGE)), 0);
	is_eq(reg(uffd, none, PAGE, MODE_MW), 0);
	is_eq(reg(uffd, read_only, PAGE, MODE_MW), 0);
	is_eq(reg(uffd, grows, PAGE, MODE_MW), 0);
	is_eq(reg(uffd, locked, PAGE, MODE_MW), 0);
}

/* What came in place of anonymous memory between the look and the call is refused, or harmless. */
Test(api, files_cannot_be_registered_but_memfds_can)
{
	int uffd = uffd_new(WP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), memfd = memfd_new(PAGE, 0);
	char *at = mmap(NULL, PAGE, RW, MAP_PRIVATE, file, 0);

	cr_assert(at != MAP_FAILED);
	is_eq(reg(uffd, at, PAGE, MODE_M), -EINVAL);
	is_eq(reg(uffd, at, PAGE, MODE_MW), -EINVAL);
	is_eq(reg(uffd, memfd_map(memfd, PAGE, MAP_PRIVATE), PAGE, MODE_MW), 0);
	is_eq(reg(uffd, memfd_map(memfd, PAGE, MAP_SHARED), PAGE, MODE_MW), 0);
}

/* pager/fault.c knows the agent by it (by_agent). */
Test(api, a_message_names_the_thread)
{
	int uffd = uffd_new(WP | UFFD_FEATURE_THREAD_ID);
	char *at = registered(uffd, 1);
	struct uffd_msg m;
	struct deed d;

	deed_read(&d, at);
	m = fault(uffd, at, F_READ);
	is_eq(m.arg.pagefault.feat.ptid, d.tid);
	cr_assert(d.tid != getpid());
	is_eq(zero_in(uffd, at, PAGE, 0), PAGE);
	deed_end(&d);
}

static int client_in_namespace(void *argument)
{
	struct turns *turns = argument;

	turns->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	turns->value[0] = getpid();
	turn_set(turns, 1);
	turn_wait(turns, 2);
	return *(volatile char *)turns->at;
}

/* The agent tells its number in its own namespace (agent_ns_pid). */
Test(api, a_message_names_the_thread_in_the_threads_own_namespace)
{
	struct turns *turns;
	struct uffd_msg m;
	int uffd;
	pid_t pid;

	close(uffd_new(UFFD_FEATURE_THREAD_ID));
	if (unshare(CLONE_NEWPID))
		cr_skip_test("no pid namespace: %s", strerror(errno));
	turns = client_turns(&pid, client_in_namespace, &uffd);
	is_eq(turns->value[0], 1);
	cr_assert(pid != 1);
	is_eq(uffd_api(uffd, UFFD_FEATURE_THREAD_ID), 0);
	is_eq(reg(uffd, turns->at, PAGE, MODE_M), 0);
	turn_set(turns, 2);
	m = fault(uffd, turns->at, F_READ);
	is_eq(m.arg.pagefault.feat.ptid, 1);
	is_eq(zero_in(uffd, turns->at, PAGE, 0), PAGE);
	is_eq(child_end(pid), 0);
}

/* Without EXACT_ADDRESS, which nobody asks for. */
Test(api, a_message_gives_the_address_of_the_page)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1);
	struct deed d;

	deed_read(&d, at + 1234);
	fault(uffd, at, F_READ);
	is_eq(zero_in(uffd, at, PAGE, 0), PAGE);
	deed_end(&d);
}

/* ---- reading a client's memory from outside ---- */

/* The daemon must never read so what may be missing: it would wait for itself. */
Test(api, process_vm_readv_of_a_missing_page_faults_and_waits)
{
	int uffd = uffd_new(WP);
	char *at = registered(uffd, 1), byte = 0;
	struct iovec to = {.iov_base = &byte, .iov_len = 1}, from = {.iov_base = at, .iov_len = 1};
	struct deed d;

	deed_start(&d, SYS_process_vm_readv, getpid(), (long)&to, 1, (long)&from, 1);
	fault(uffd, at, F_READ);
	deed_waits(&d);
	is_eq(copy_in(uffd, at, page_of(5), PAGE, 0), PAGE);
	is_eq(deed_end(&d), 1);
	is_eq(byte, 5);
}

/* pager/gate.c reads what a dead agent had staged through the client's /proc/PID/mem. */
Test(api, proc_mem_reads_what_is_present_and_answers_eio_for_the_rest)
{
	int uffd = uffd_new(WP), mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	char *at = registered(uffd, 2), byte = 0;

	is_eq(copy_in(uffd, at, page_of(5), PAGE, 0), PAGE);
	is_eq(err(pread(mem, &byte, 1, (off_t)(uintptr_t)at)), 1);
	is_eq(byte, 5);
	is_eq(err(pread(mem, &byte, 1, (off_t)(uintptr_t)(at + PAGE))), -EIO);
	silent(uffd);
}
