/* Programs that give things away: descriptors, privileges, system calls. Each forks afterwards,
 * since that is when a pager needs something of the program. */
#include "behave.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void go_on(struct area *a)
{
	pid_t pid;

	area_check(a);
	area_refill(a, 1000);
	area_check(a);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		area_check(a);
		area_refill(a, 2000);
		area_check(a);
		_exit(0);
	}
	area_refill(a, 3000);
	area_check(a);
	await(pid);
	area_check(a);
}

static void close_range_all(void)
{
	struct area a = area_start();

	if (syscall(SYS_close_range, 3, ~0u, 0) != 0)
		skip("close_range: %s", strerror(errno));
	go_on(&a);
}

static void close_loop(void)
{
	struct area a = area_start();

	for (int fd = 3; fd < 4096; fd++)
		close(fd);
	go_on(&a);
	for (int fd = 3; fd < 300; fd++) /* numbers that somebody might have thought were his */
		must(dup2(2, fd) == fd);
	go_on(&a);
}

static void no_files(void)
{
	struct area a = area_start();
	struct rlimit none = {3, 3};

	must(setrlimit(RLIMIT_NOFILE, &none) == 0);
	go_on(&a);
}

static void change_uid(void)
{
	struct area a = area_start();

	if (getuid() != 0)
		skip("only root can change its uid");
	must(setgid(65534) == 0);
	must(setuid(65534) == 0);
	must(setuid(0) != 0);
	go_on(&a);
}

static void not_dumpable(void)
{
	struct area a = area_start();

	must(prctl(PR_SET_DUMPABLE, 0) == 0);
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	must(prctl(PR_SET_NAME, "renamed") == 0);
	must(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	go_on(&a);
}

static void change_root(void)
{
	struct area a = area_start();

	if (getuid() != 0)
		skip("only root can chroot");
	must(chroot("/var/empty") == 0 || chroot("/proc") == 0);
	must(chdir("/") == 0);
	go_on(&a);
}

static void unshare_user(void)
{
	struct area a = area_start();

	if (unshare(CLONE_NEWUSER) != 0) /* EINVAL for a process with threads: a pager adds none */
		wrong("unshare(CLONE_NEWUSER): %m");
	go_on(&a);
}

static void unshare_pid(void)
{
	struct area a = area_start();

	if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0)
		skip("unshare(CLONE_NEWPID): %s", strerror(errno));
	go_on(&a); /* its child has pid 1 in a namespace of its own */
}

/* What this program needs from now on and nothing else; other calls kill it. */
static void filter(unsigned otherwise)
{
	static const int allowed[] = {
		SYS_read,	   SYS_write,	   SYS_exit_group,	SYS_exit,
		SYS_clone,	   SYS_wait4,	   SYS_set_robust_list, SYS_rt_sigprocmask,
		SYS_rt_sigreturn,  SYS_futex,	   SYS_mmap,		SYS_munmap,
		SYS_brk,	   SYS_newfstatat, SYS_getpid,
	};
	const unsigned n = sizeof allowed / sizeof *allowed;
	struct sock_filter code[32];
	struct sock_fprog program = {.filter = code};
	unsigned k = 0;

	code[k++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						  offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < n; i++)
		code[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							  (unsigned)allowed[i],
							  (unsigned char)(n - i), 0);
	code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, otherwise);
	code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program.len = (unsigned short)k;
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		skip("seccomp: %s", strerror(errno));
}

static void seccomp_kill(void)
{
	struct area a = area_start();

	filter(SECCOMP_RET_KILL_PROCESS);
	go_on(&a);
}

static void seccomp_eperm(void)
{
	struct area a = area_start();

	filter(SECCOMP_RET_ERRNO | EPERM);
	go_on(&a);
}

/* Strict: read, write and _exit only. */
static void seccomp_strict(void)
{
	struct area a = area_start();
	char line[64];
	int n = snprintf(line, sizeof line, "ok %s\n", subject);

	fflush(stdout);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
		skip("seccomp: %s", strerror(errno));
	area_check(&a);
	area_refill(&a, 1000);
	area_check(&a);
	syscall(SYS_write, 1, line, n);
	syscall(SYS_exit, 0);
}

const struct behaviour privilege_behaviours[] = {
	{"close-range", close_range_all},
	{"close-loop", close_loop},
	{"no-files", no_files},
	{"setuid", change_uid},
	{"prctl", not_dumpable},
	{"chroot", change_root},
	{"unshare-user", unshare_user},
	{"unshare-pid", unshare_pid},
	{"seccomp-kill", seccomp_kill},
	{"seccomp-eperm", seccomp_eperm},
	{"seccomp-strict", seccomp_strict},
	{0},
};
