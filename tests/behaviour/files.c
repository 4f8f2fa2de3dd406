/*
 * File behaviours: what programs do with files that they map through libupager.
 *
 * `files NAME [MIB]`, with the file's path in $FILES_PATH (made if it is missing, MIB mebibytes of
 * a pattern), does NAME, checks every byte and prints "ok NAME". As `behave`: wrong bytes end it
 * with status 1 and a line on stderr.
 */
#include "files.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct upager *pager;
int file = -1;
static const char *path;

size_t pages(void)
{
	return mebibytes * MIB / PAGE;
}

static void make_file(void)
{
	char page[PAGE];

	file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(file >= 0);
	if (lseek(file, 0, SEEK_END) > 0)
		return;
	for (size_t i = 0; i < pages(); i++) {
		page_fill(page, SALT + i);
		must(pwrite(file, page, PAGE, (off_t)(i * PAGE)) == PAGE);
	}
}

char *map_part(unsigned flags, int prot, size_t first, size_t n, size_t unit)
{
	void *at = NULL;
	int r = upager_map_file(pager, file, first * PAGE, n * PAGE, flags, prot, unit, &at);

	if (r < 0)
		wrong("upager_map_file: %s", strerror(-r));
	return at;
}

char *map_whole(unsigned flags)
{
	return map_part(flags, PROT_READ | PROT_WRITE, 0, pages(), 0);
}

void check_all(const char *at, uint64_t salt)
{
	for (size_t i = 0; i < pages(); i++)
		page_check(at + i * PAGE, salt + i);
}

void check_file(size_t i, uint64_t salt)
{
	char page[PAGE];

	must(pread(file, page, PAGE, (off_t)(i * PAGE)) == PAGE);
	page_check(page, salt);
}

void ok(int r, const char *what)
{
	if (r < 0)
		wrong("%s: %s", what, strerror(-r));
}

struct upager_stat figures(void)
{
	struct upager_stat stat;

	ok(upager_stat(pager, &stat), "upager_stat");
	return stat;
}

/* ---- SIGBUS ---- */

static sigjmp_buf bus_back;

static void on_bus(int number)
{
	(void)number;
	siglongjmp(bus_back, 1);
}

bool bus_at(volatile char *at)
{
	struct sigaction action = {.sa_handler = on_bus};

	sigaction(SIGBUS, &action, NULL);
	if (sigsetjmp(bus_back, 1))
		return true;
	*at;
	return false;
}

bool write_fails(volatile char *at)
{
	struct sigaction action = {.sa_handler = on_bus};

	sigaction(SIGBUS, &action, NULL);
	if (sigsetjmp(bus_back, 1))
		return true;
	*at = 1;
	return false;
}

void in_child(void (*run)(char *at), char *at)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid) {
		run(at);
		_exit(0);
	}
	await(pid);
}

static const struct behaviour *const lists[] = {row_files, space_files};

int main(int argc, char **argv)
{
	struct upager_options options = {.size = sizeof options};
	int r;

	subject = argc > 1 ? argv[1] : "";
	path = getenv("FILES_PATH");
	mebibytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 16;
	must(path);
	make_file();
	if (getenv("FILES_MEMORY"))
		options.memory = strtoul(getenv("FILES_MEMORY"), NULL, 10);
	r = upager_open(&options, &pager);
	if (r < 0)
		wrong("upager_open: %s", strerror(-r));
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
		for (const struct behaviour *b = lists[i]; b->name; b++)
			if (!strcmp(b->name, subject)) {
				b->run();
				upager_close(pager);
				printf("ok %s\n", subject);
				return 0;
			}
	wrong("no such behaviour");
}
