#include "preflight.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "failure.h"

int preflight_userfaultfd(int device_error, int call_error, struct failure *failure)
{
	if (!device_error || !call_error)
		return 0;
	if (call_error == -ENOSYS)
		return fail(failure, call_error,
			    "this kernel has no userfaultfd: Linux 5.7 or newer is needed, built "
			    "with CONFIG_USERFAULTFD");
	if (call_error == -EPERM && device_error == -ENOENT)
		return fail(failure, call_error,
			    "no permission to use userfaultfd: run upagerd as root, or set "
			    "vm.unprivileged_userfaultfd to 1 (sysctl)");
	if (call_error == -EPERM)
		return fail(failure, call_error,
			    "no permission to use userfaultfd: run upagerd as root, or give this "
			    "user access to /dev/userfaultfd, or set vm.unprivileged_userfaultfd "
			    "to 1 (sysctl)");
	return fail(failure, call_error, "userfaultfd: %s", strerror(-call_error));
}

int preflight_io_uring(int setup_error, int sysctl, struct failure *failure)
{
	if (setup_error == -ENOSYS)
		return fail(failure, setup_error,
			    "this kernel has no io_uring: Linux 5.7 or newer is needed, built "
			    "with CONFIG_IO_URING");
	if (setup_error == -EPERM && sysctl > 0)
		return fail(failure, setup_error,
			    "io_uring is switched off: set kernel.io_uring_disabled to 0 "
			    "(sysctl; it is %d)",
			    sysctl);
	if (setup_error == -EPERM)
		return fail(failure, setup_error,
			    "io_uring is not permitted here: a seccomp filter, such as a "
			    "container's, forbids it");
	return 0; /* EFAULT and EINVAL: it is there and has read our (empty) arguments */
}

static int read_number(const char *path)
{
	FILE *file = fopen(path, "re");
	int number = -1;

	if (file) {
		if (fscanf(file, "%d", &number) != 1)
			number = -1;
		fclose(file);
	}
	return number;
}

static int try_open(int fd)
{
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int preflight(struct failure *failure)
{
	int device = try_open(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
	int call = try_open((int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
	int r = preflight_userfaultfd(device, call, failure);

	if (r < 0)
		return r;
	return preflight_io_uring(try_open((int)syscall(SYS_io_uring_setup, 0, NULL)),
				  read_number("/proc/sys/kernel/io_uring_disabled"), failure);
}

int preflight_explain(int r, const char *error_on, struct failure *failure)
{
	if (!error_on)
		return fail(failure, r, "can't start the pager: %s", strerror(-r));
	if (r == -EOPNOTSUPP)
		return fail(failure, r, "this kernel lacks %s; a newer one is needed", error_on);
	return fail(failure, r, "can't start the pager: %s: %s", error_on, strerror(-r));
}
