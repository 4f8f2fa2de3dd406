#include "program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "terminal.h"

#define SCRIPT_DEPTH 5 /* as the kernel's: interpreters of interpreters */

static bool executable_file(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0 || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0)
		return false;
	if (S_ISREG(st.st_mode))
		return true;
	errno = EACCES;
	return false;
}

/* => *ret is malloc'ed; 0 or the errno of the best candidate. */
static int search_path(const char *command, char **ret)
{
	const char *path = getenv("PATH");
	int error = ENOENT;

	for (const char *dir = path ? path : "/bin:/usr/bin"; dir;) {
		size_t length = strcspn(dir, ":");
		char *candidate;

		if (asprintf(&candidate, "%.*s%s%s", (int)length, dir, length ? "/" : "./",
			     command) < 0)
			return ENOMEM;
		if (executable_file(candidate)) {
			*ret = candidate;
			return 0;
		}
		if (errno == EACCES)
			error = EACCES;
		free(candidate);
		dir = dir[length] ? dir + length + 1 : NULL;
	}
	return error;
}

static int refuse(const char *path, const char *what, const char *advice)
{
	say("%s is %s: a preloaded library cannot reach it, so upager cannot page it; %s", path,
	    what, advice);
	return EXIT_NOT_EXECUTABLE;
}

static int check_privileges(int fd, const char *path)
{
	static const char advice[] = "run it without upager, or a copy without the privilege";
	char capability[64];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return 0;
	if (st.st_mode & S_ISUID)
		return refuse(path, "a setuid program", advice);
	if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP))
		return refuse(path, "a setgid program", advice);
	if (fgetxattr(fd, "security.capability", capability, sizeof(capability)) > 0)
		return refuse(path, "a program with file capabilities", advice);
	return 0;
}

static int check_elf(int fd, const char *path)
{
	Elf64_Ehdr header;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return 0; /* the kernel will say what is wrong with it */
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64)
		return refuse(path, "not a 64-bit x86 program", "run it without upager");
	for (unsigned i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr segment;

		if (pread(fd, &segment, sizeof(segment),
			  (off_t)(header.e_phoff + (uint64_t)i * header.e_phentsize)) !=
		    sizeof(segment))
			return 0;
		if (segment.p_type == PT_INTERP)
			return 0;
	}
	return refuse(path, "statically linked", "use a dynamically linked build of it");
}

/* The first word of a #! line, or NULL. */
static char *interpreter_of(int fd)
{
	char line[PATH_MAX], *start, *end;
	ssize_t n = pread(fd, line, sizeof(line) - 1, 0);

	if (n < 2 || line[0] != '#' || line[1] != '!')
		return NULL;
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	start = line + 2 + strspn(line + 2, " \t");
	end = start + strcspn(start, " \t\r");
	return strndup(start, (size_t)(end - start));
}

static int check(const char *path, unsigned depth)
{
	unsigned char magic[4] = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC), status;
	char *interpreter;

	if (fd < 0)
		return 0; /* executable but not readable: nothing to learn */
	status = check_privileges(fd, path);
	if (status == 0 && pread(fd, magic, 4, 0) == 4 && !memcmp(magic, ELFMAG, SELFMAG))
		status = check_elf(fd, path);
	interpreter = status == 0 ? interpreter_of(fd) : NULL;
	close(fd);
	if (interpreter && *interpreter && !executable_file(interpreter)) {
		status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
		say("%s: its interpreter %s: %s", path, interpreter, strerror(errno));
	} else if (interpreter && *interpreter && depth < SCRIPT_DEPTH) {
		status = check(interpreter, depth + 1);
	}
	free(interpreter);
	return status;
}

int program_find(const char *command, char **ret_path)
{
	char *path = NULL;
	int error = 0, status;

	if (!*command)
		error = ENOENT;
	else if (!strchr(command, '/'))
		error = search_path(command, &path);
	else if (!executable_file(command))
		error = errno;
	else if (!(path = strdup(command)))
		error = ENOMEM;
	if (error == ENOENT) {
		say("%s: command not found%s", command,
		    strchr(command, '/') ? "" : " in any directory of PATH");
		return EXIT_NOT_FOUND;
	}
	if (error) {
		say("%s: cannot be executed: %s", command, strerror(error));
		return error == ENOMEM ? EXIT_UPAGER : EXIT_NOT_EXECUTABLE;
	}
	status = check(path, 0);
	if (status == 0)
		*ret_path = path;
	else
		free(path);
	return status;
}
