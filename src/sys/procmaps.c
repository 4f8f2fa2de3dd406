#include "sys/procmaps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/kernel.h"

#define HUGE_PAGE (2ull << 20)

static int append(struct procmaps *maps, const struct procmaps_vma *vma)
{
	if (maps->n == maps->capacity) {
		size_t capacity = maps->capacity ? maps->capacity * 2 : 64;
		struct procmaps_vma *vmas = reallocarray(maps->vmas, capacity, sizeof(*vmas));

		if (!vmas)
			return -ENOMEM;
		maps->vmas = vmas;
		maps->capacity = capacity;
	}
	maps->vmas[maps->n++] = *vma;
	return 0;
}

/* A VMA without a file may still be special: [vdso], [vvar], [vsyscall]; heap, stack and
 * [anon:…] are memory. */
static unsigned flags_of_name(const char *name)
{
	if (!*name || !strcmp(name, "[heap]") || !strncmp(name, "[anon:", 6))
		return PROCMAPS_ANONYMOUS;
	if (!strncmp(name, "[stack", 6))
		return PROCMAPS_ANONYMOUS | PROCMAPS_STACK;
	return 0;
}

/* The first VMA at or above `address`. */
static int query(int fd, uint64_t address, struct procmaps_vma *ret)
{
	char name[256];
	struct procmap_query q = {
		.size = sizeof(q),
		.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
		.query_addr = address,
		.vma_name_addr = (uintptr_t)name,
		.vma_name_size = sizeof(name),
	};

	if (ioctl(fd, PROCMAP_QUERY, &q)) {
		if (errno != ENAMETOOLONG)
			return -errno;
		/* Only a file has a name that long. */
		q.vma_name_addr = q.vma_name_size = 0;
		if (ioctl(fd, PROCMAP_QUERY, &q))
			return -errno;
		snprintf(name, sizeof(name), "/");
		q.vma_name_size = 1;
	}
	*ret = (struct procmaps_vma){.start = q.vma_start,
				     .end = q.vma_end,
				     .device = makedev(q.dev_major, q.dev_minor),
				     .inode = q.inode,
				     .offset = q.vma_offset};
	ret->flags = q.vma_flags & (PROCMAPS_READ | PROCMAPS_WRITE | PROCMAPS_EXEC | PROCMAPS_SHARED);
	if (q.vma_page_size == HUGE_PAGE)
		ret->flags |= PROCMAPS_HUGETLB;
	if (!q.inode && !q.dev_major && !q.dev_minor && !(ret->flags & PROCMAPS_SHARED))
		ret->flags |= flags_of_name(q.vma_name_size ? name : "");
	return 0;
}

int procmaps_parse_line(const char *line, struct procmaps_vma *ret)
{
	unsigned long long start, end, offset, inode;
	unsigned major, minor;
	char perms[5];
	int name_at = 0;

	if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %n", &start, &end, perms, &offset,
		   &major, &minor, &inode, &name_at) < 7 || !name_at || start >= end)
		return -EINVAL;
	*ret = (struct procmaps_vma){.start = start,
				     .end = end,
				     .device = makedev(major, minor),
				     .inode = inode,
				     .offset = offset};
	ret->flags |= perms[0] == 'r' ? PROCMAPS_READ : 0;
	ret->flags |= perms[1] == 'w' ? PROCMAPS_WRITE : 0;
	ret->flags |= perms[2] == 'x' ? PROCMAPS_EXEC : 0;
	ret->flags |= perms[3] == 's' ? PROCMAPS_SHARED : 0;
	/* Mapped files of hugetlbfs do not say here what they are. */
	if (!strncmp(line + name_at, "/anon_hugepage", 14))
		ret->flags |= PROCMAPS_HUGETLB;
	if (!inode && !major && !minor && perms[3] == 'p') {
		char name[32];

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(line + name_at, "\n"),
			 line + name_at);
		ret->flags |= flags_of_name(name);
	}
	return 0;
}

/* Calls back for each VMA of the text from `maps_fd`; the walk ends when `each` returns nonzero. */
static int read_text(int maps_fd, int (*each)(void *, const struct procmaps_vma *), void *context)
{
	char path[32];
	char line[4352];
	struct procmaps_vma vma;
	FILE *file;
	int fd, r = 0;

	/* A duplicate would share the offset; the text is read through a fresh description. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", maps_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = fcntl(maps_fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	file = fdopen(fd, "r");
	if (!file) {
		close(fd);
		return -ENOMEM;
	}
	rewind(file);
	while (r == 0 && fgets(line, sizeof(line), file))
		if (procmaps_parse_line(line, &vma) == 0)
			r = each(context, &vma);
	if (r == 0 && ferror(file))
		r = -errno;
	fclose(file);
	return r;
}

static int append_each(void *context, const struct procmaps_vma *vma)
{
	return append(context, vma);
}

int procmaps_next(int maps_fd, bool use_query, struct procmaps *maps, uint64_t address,
		  struct procmaps_vma *ret)
{
	int r;

	if (use_query && !maps->n) {
		r = query(maps_fd, address, ret);
		if (r != -ENOTTY)
			return r == -ENOENT && !address ? -ESRCH : r;
	}
	if (!maps->n) {
		r = read_text(maps_fd, append_each, maps);
		if (r < 0)
			return r;
		if (!maps->n)
			return -ESRCH;
	}
	while (maps->next < maps->n && maps->vmas[maps->next].end <= address)
		maps->next++;
	if (maps->next == maps->n)
		return -ENOENT;
	*ret = maps->vmas[maps->next];
	return 0;
}

struct find {
	uint64_t address;
	struct procmaps_vma *ret;
};

static int find_each(void *context, const struct procmaps_vma *vma)
{
	struct find *find = context;

	if (vma->end <= find->address)
		return 0;
	*find->ret = *vma;
	return 1;
}

int procmaps_above(int maps_fd, bool use_query, uint64_t address, struct procmaps_vma *ret)
{
	struct find find = {address, ret};
	int r = use_query ? query(maps_fd, address, ret) : -ENOTTY;

	if (r != -ENOTTY)
		return r;
	r = read_text(maps_fd, find_each, &find);
	return r == 1 ? 0 : r < 0 ? r : -ENOENT;
}

int procmaps_find(int maps_fd, bool use_query, uint64_t address, struct procmaps_vma *ret)
{
	int r = procmaps_above(maps_fd, use_query, address, ret);

	return r < 0 ? r : ret->start <= address ? 0 : -ENOENT;
}

void procmaps_done(struct procmaps *maps)
{
	free(maps->vmas);
	*maps = (struct procmaps){0};
}

int procmaps_statm(int statm_fd, struct procmaps_statm *ret)
{
	char text[128];
	ssize_t n = pread(statm_fd, text, sizeof(text) - 1, 0);
	uint64_t field[7];
	char *at = text;

	if (n <= 0)
		return n < 0 ? -errno : -ESRCH;
	text[n] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(field); i++)
		field[i] = strtoull(at, &at, 10);
	if (!field[0])
		return -ESRCH; /* a zombie: no address space */
	*ret = (struct procmaps_statm){
		.size = field[0], .resident = field[1], .shared = field[2], .data = field[5]};
	return 0;
}

int procmaps_pss_anon(int rollup_fd, uint64_t *ret)
{
	char text[2048];
	ssize_t n = pread(rollup_fd, text, sizeof(text) - 1, 0);
	const char *line;

	if (n <= 0)
		return n < 0 ? -errno : -ESRCH;
	text[n] = 0;
	line = strstr(text, "\nPss_Anon:");
	if (!line)
		return -ENODATA;
	*ret = strtoull(line + 10, NULL, 10) * 1024;
	return 0;
}
