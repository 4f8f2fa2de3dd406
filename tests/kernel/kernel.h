/*
 * For the kernel-fact tests: what upager takes for granted about the kernel, one test for each, on
 * the kernel's own interface. A kernel that changes one of these facts is then noticed by its name.
 *
 * Calls return what the system call does, or -errno; fills return the bytes done if there are any.
 * Whatever is expected and does not come fails the test after PATIENCE.
 */
#pragma once

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "sys/kernel.h"

#define PAGE     4096ul
#define PATIENCE 10000 /* ms */

#define RW (PROT_READ | PROT_WRITE)

#define EVENTS                                                                                     \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |          \
	 UFFD_FEATURE_EVENT_UNMAP)
#define WP     UFFD_FEATURE_PAGEFAULT_FLAG_WP
#define MARKER (WP | UFFD_FEATURE_WP_UNPOPULATED)
#define ALL    (EVENTS | MARKER | UFFD_FEATURE_MOVE) /* what upager asks for in order to evict */

/* Registration modes. */
#define MODE_M  UFFDIO_REGISTER_MODE_MISSING
#define MODE_W  UFFDIO_REGISTER_MODE_WP
#define MODE_N  UFFDIO_REGISTER_MODE_MINOR
#define MODE_MW (MODE_M | MODE_W)

/* Flags of a fault message. */
#define F_READ  0
#define F_WRITE UFFD_PAGEFAULT_FLAG_WRITE
#define F_WP    (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE)
#define F_MINOR UFFD_PAGEFAULT_FLAG_MINOR

/* The result of a system call, as -errno if it failed. */
#define err(call)                                                                                  \
	({                                                                                         \
		long err_ = (long)(call);                                                          \
		err_ == -1 ? -(long)errno : err_;                                                  \
	})

#define is_eq(actual, expected)                                                                    \
	do {                                                                                       \
		long actual_ = (long)(actual), expected_ = (long)(expected);                       \
		cr_assert(actual_ == expected_, "%s is %ld (%#lx), not %ld (%#lx)", #actual,       \
			  actual_, actual_, expected_, expected_);                                 \
	} while (0)

/* ---- memory ---- */

/* Private anonymous memory without huge pages, between pages that nothing merges with. */
char *region(size_t pages);
/* A page filled with this byte; good until the next call of this thread. */
const char *page_of(char byte);
char *memfd_map(int fd, size_t length, int flags);
int memfd_new(size_t length, unsigned flags);
/* The byte at `at`, which must be present. */
static inline char byte_at(const volatile char *at)
{
	return *at;
}

/* ---- userfaultfd ---- */

/* A uffd of this process (O_CLOEXEC | O_NONBLOCK) after the handshake. Skips the test if there may
 * be none, or if this kernel lacks one of the features. */
int uffd_new(uint64_t features);
int uffd_unshaken(int flags); /* before the handshake */
long uffd_api(int uffd, uint64_t features);
uint64_t uffd_has(void); /* the kernel's features */
/* uffd_new, and `pages` of memory registered MISSING and WP. */
char *registered(int uffd, size_t pages);

long reg(int uffd, const void *at, size_t length, uint64_t modes);
long unreg(int uffd, const void *at, size_t length);
long wake(int uffd, const void *at, size_t length);
long copy_in(int uffd, void *at, const void *from, size_t length, uint64_t mode);
long zero_in(int uffd, void *at, size_t length, uint64_t mode);
long proceed(int uffd, void *at, size_t length, uint64_t mode); /* UFFDIO_CONTINUE */
long poison(int uffd, void *at, size_t length);
long move(int uffd, void *to, void *from, size_t length);
long protect(int uffd, void *at, size_t length);
long unprotect(int uffd, void *at, size_t length);

/* ---- messages ---- */

struct uffd_msg message(int uffd);
/* Nothing can be read now. */
void silent(int uffd);
/* The next message is a fault on this page with these flags, exactly. */
struct uffd_msg fault(int uffd, const void *at, uint64_t flags);
/* The next message is this event: REMOVE or UNMAP of a range. */
void event(int uffd, unsigned event, const void *start, size_t length);
void event_remap(int uffd, const void *from, const void *to, size_t length);
/* The next message is a FORK: the child's uffd. */
int event_fork(int uffd);
/* Returns once something can be read, which it leaves there. */
void pending(int uffd);
/* Returns once so many faults wait unread. */
void faults_pending(int uffd, int n);

/* ---- what may wait: done by a thread of its own ---- */

struct deed {
	pthread_t thread;
	_Atomic pid_t tid;
	atomic_bool done;
	long (*function)(void *argument);
	void *argument;
	long number, arg[5];
	long result;
};

void deed_run(struct deed *deed, long (*function)(void *argument), void *argument);
void deed_start(struct deed *deed, long number, long a, long b, long c, long d, long e);
#define deed_call(deed, number, a, b, c)                                                           \
	deed_start(deed, number, (long)(a), (long)(b), (long)(c), 0, 0)
#define deed_mremap(deed, from, length, new_length, flags, to)                                     \
	deed_start(deed, SYS_mremap, (long)(from), (long)(length), (long)(new_length),             \
		   (long)(flags), (long)(to))
/* Reads a byte; the result is that byte. */
void deed_read(struct deed *deed, const char *at);
/* Writes 'w'; the result is 'w'. */
void deed_write(struct deed *deed, char *at);
/* It waits for something that has not come. */
void deed_waits(const struct deed *deed);
/* Waits for its end. */
long deed_end(struct deed *deed);
/* Touches memory and expects that nobody is told. */
long read_unseen(int uffd, const char *at);
long write_unseen(int uffd, char *at);

/* ---- processes ---- */

/* A child that runs `function` and exits with its result. */
pid_t child_new(int (*function)(void *argument), void *argument);
/* The same from a thread of its own: fork(2) waits until its event has been read. */
void deed_fork(struct deed *deed, int (*function)(void *argument), void *argument);
pid_t deed_pid(struct deed *deed);
/* Waits for its end: the exit status, or 128 + signal. */
int child_end(pid_t pid);
int child_run(int (*function)(void *argument), void *argument);
/* A descriptor of another process. */
int fd_of(pid_t pid, int fd);

/* Memory that this process and its children share, to take turns. */
struct turns {
	_Atomic int turn;
	int fd;
	char *at;
	long value[4];
};
struct turns *turns_new(void);
void turn_set(struct turns *turns, int turn);
void turn_wait(struct turns *turns, int turn);

/* ---- page tables ---- */

#define PM_EXCLUSIVE (1ull << 56)
#define PM_WP        (1ull << 57)
#define PM_SWAP      (1ull << 62)
#define PM_PRESENT   (1ull << 63)

/* The pagemap's entry: those of the bits above that are set. */
uint64_t entry_of(pid_t pid, const void *at);
uint64_t entry(const void *at);
/* Both say: uffd-wp on an empty pte. */
bool is_marker(const void *at);
bool is_marker_of(pid_t pid, const void *at);
bool is_present(const void *at);
/* PAGEMAP_SCAN over one page: its categories, or -errno. */
long categories(int pagemap, const void *at);

#define PAUSE_US 200 /* between two looks at what is waited for */
uint64_t now_ms(void);
