#include "behave.h"

#include <string.h>

char *self;

static const struct behaviour *const lists[] = {memory_behaviours, advice_behaviours,
						process_behaviours, thread_behaviours,
						privilege_behaviours,
						load_behaviours, huge_behaviours, hugetlb_behaviours};

int main(int argc, char **argv)
{
	if (argc < 2) {
		for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
			for (const struct behaviour *b = lists[l]; b->name; b++)
				puts(b->name);
		return 0;
	}
	subject = argv[1];
	if (argc > 2)
		mebibytes = strtoul(argv[2], NULL, 10);
	self = realpath("/proc/self/exe", NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t l = 0; l < sizeof lists / sizeof *lists; l++) {
		for (const struct behaviour *b = lists[l]; b->name; b++) {
			if (strcmp(b->name, subject) != 0)
				continue;
			b->run();
			printf("ok %s\n", subject);
			return 0;
		}
	}
	fprintf(stderr, "behave: no behaviour is called %s\n", subject);
	return 64;
}
