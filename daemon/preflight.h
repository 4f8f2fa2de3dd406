/* Looks, before anything is made, whether this kernel and this user can do what the pager needs. */
#pragma once

struct failure;

/* 0; -ENOSYS, -EPERM, -EACCES … with a sentence that says what to do. */
int preflight(struct failure *failure);

/* The sentence for a failed pager_new; error_on may be NULL. Returns r. */
int preflight_explain(int r, const char *error_on, struct failure *failure);

/* The pieces, with what the kernel answered as parameters. device_error is that of opening
 * /dev/userfaultfd, call_error that of userfaultfd(2), both 0 = it can be used. */
int preflight_userfaultfd(int device_error, int call_error, struct failure *failure);
/* setup_error: io_uring_setup(2) without parameters; sysctl: kernel.io_uring_disabled, -1 = none.
 */
int preflight_io_uring(int setup_error, int sysctl, struct failure *failure);
