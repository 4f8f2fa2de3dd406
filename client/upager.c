/* The command line: `upager COMMAND …`. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "terminal.h"

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *usage, *purpose, *options;
} commands[] = {
	{"run", command_run, "run [OPTION…] [--] COMMAND [ARGUMENT…]",
	 "Runs a program, and what it starts, under a memory limit.",
	 "  --memory SIZE     limit of the memory that stays resident (default: all there is)\n"
	 "  --swap PATH       swap file or block device of a private daemon; its content is lost\n"
	 "                    (default: a sparse file in /var/tmp that is removed at the end)\n"
	 "  --swap-size SIZE  its size (default: that of an existing one, else twice the limit,\n"
	 "                    at least 8G)\n"
	 "  --compressed SIZE memory besides the limit that pages are compressed into first\n"
	 "                    (default: none); with --swap none they stay there\n"
	 "  --name NAME       name of the group (default: the command's name and a number)\n"
	 "  --socket PATH     control socket of the daemon; if none listens there, a private one\n"
	 "                    does for this run\n"
	 "  --config FILE     configuration of a private daemon, see upagerd.json(5)\n"
	 "  --trace FILE      record what happens from the beginning on, see `upager trace --help`\n"
	 "  --stats           print what happened to stderr at the end\n"
	 "  --json            the same as one line of JSON\n"
	 "\n"
	 "The exit status is the program's own; 127: not found, 126: cannot be executed or paged,\n"
	 "125: upager itself failed. --swap, --swap-size, --compressed and --config imply a\n"
	 "private daemon.\n"},
	{"ps", command_ps, "ps [--json] [--socket PATH]",
	 "Lists groups and their tasks.", ""},
	{"stat", command_stat, "stat [--watch] [--interval SECONDS] [--json] [--socket PATH] "
			       "[TASK|GROUP]",
	 "Shows every figure of a group or a task (a process id); of all groups by default.",
	 "  --watch           one line a second, until interrupted or the last group ends\n"
	 "  --interval S      seconds between lines\n"},
	{"limit", command_limit, "limit [--json] [--socket PATH] GROUP SIZE",
	 "Changes a group's limit, up or down, while it runs.", ""},
	{"snapshot", command_snapshot, "snapshot [--json] [--socket PATH] TASK -o FILE",
	 "Writes a process's memory, as it is at one moment, to a new file while it goes on.",
	 "  -o, --output FILE the file; it must not exist\n"},
	{"trace", command_trace, "trace [--seconds N] [--json] [--socket PATH] GROUP -o FILE\n"
				 "       upager trace --convert perfetto|text FILE [-o FILE]",
	 "Records what happens to a group's memory (faults, evictions, events), or converts such a record.",
	 "  -o, --output FILE the file; it must not exist\n"
	 "  --seconds N       ends after so long; else with the group, or by Ctrl-C\n"
	 "  --convert FORM    of a trace: perfetto (JSON for ui.perfetto.dev), or text\n"},
	{"tiers", command_tiers, "tiers [--json] [--socket PATH]",
	 "Shows where evicted pages rest.", ""},
};

static void print_usage(const struct command *command)
{
	printf("Usage: upager %s\n\n%s\n\n%s", command->usage, command->purpose, command->options);
	if (strcmp(command->name, "run"))
		printf("  --json            JSON instead of a table\n"
		       "  --socket PATH     the daemon to ask (default: the system's, and every\n"
		       "                    private one of yours)\n");
	printf("\nSizes: 4096, 64K, 256M, 1.5G; suffixes are binary.\n");
}

static void print_help(void)
{
	printf("Usage: upager COMMAND [OPTION…]\n\n"
	       "Runs programs in a fraction of the memory they ask for.\n\n");
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].purpose);
	printf("\n`upager COMMAND --help` tells more; the manual is upager(1).\n");
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

/* Options of `run` end where the program's own begin. */
static bool asks_for_help(int argc, char **argv)
{
	for (int i = 1; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
}

/* Whoever closed a standard stream must not find one of our sockets in its place. CLOEXEC: the
 * program finds it closed. */
static void fill_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	const struct command *command = find(name);

	fill_streams();
	if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h")) {
		command = argc > 2 ? find(argv[2]) : NULL;
		if (command)
			print_usage(command);
		else
			print_help();
		return 0;
	}
	if (!strcmp(name, "--version")) {
		printf("upager %s\n", UPAGER_VERSION);
		return 0;
	}
	if (!command && *name)
		return say_failed("there is no command \"%s\"; see `upager --help`", name);
	if (!command)
		return say_failed("which command? See `upager --help`");
	if (asks_for_help(argc - 1, argv + 1)) {
		print_usage(command);
		return 0;
	}
	return command->run(argc - 1, argv + 1);
}
