#include "sweep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "places.h"
#include "terminal.h"

#define LOCK      "lock"
#define NOTE      "run.json"
#define DEPTH     8  /* of directories within a run directory */
#define YOUNG_S   60 /* a directory without a lock file may be in the making */
#define ATTEMPTS  8

/* Hidden until it is locked, so that a sweep does not take it for a crashed run's. */
static int make_locked(const char *runs, char **ret_dir, int *ret_lock)
{
	char *hidden, *path = NULL;
	int dir = -1, lock = -1, r;

	if (asprintf(&hidden, "%s/.XXXXXX", runs) < 0)
		return -ENOMEM;
	if (!mkdtemp(hidden)) {
		r = -errno;
		goto out;
	}
	if (asprintf(&path, "%s/%s", runs, strrchr(hidden, '/') + 2) < 0) {
		path = NULL;
		r = -ENOMEM;
		goto out_remove;
	}
	dir = open(hidden, O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0)
		lock = openat(dir, LOCK, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0 || fchmod(dir, 0711) < 0 ||
	    rename(hidden, path) < 0) {
		r = -errno;
		goto out_remove;
	}
	*ret_dir = path;
	*ret_lock = lock;
	path = NULL;
	lock = -1;
	r = 0;
	goto out;

out_remove:
	if (dir >= 0)
		unlinkat(dir, LOCK, 0);
	rmdir(hidden);
out:
	if (dir >= 0)
		close(dir);
	if (lock >= 0)
		close(lock);
	free(hidden);
	free(path);
	return r;
}

int run_directory_make(char **ret_dir, int *ret_lock)
{
	int r = -ENOENT;

	/* Another run may remove the empty parent between our two steps. */
	for (int i = 0; i < ATTEMPTS && r == -ENOENT; i++) {
		char *runs = place_make_runs();

		if (!runs)
			return -1;
		r = make_locked(runs, ret_dir, ret_lock);
		if (r < 0 && r != -ENOENT)
			say("cannot make a runtime directory in %s: %s", runs, strerror(-r));
		free(runs);
	}
	return r < 0 ? -1 : 0;
}

static json_t *note_file(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return json_null();
	return json_pack("{s:s, s:I, s:I}", "path", path, "device", (json_int_t)st.st_dev, "inode",
			 (json_int_t)st.st_ino);
}

int run_directory_note(const char *dir, const char *swap, const char *socket)
{
	json_t *files = json_array();
	json_t *note = json_pack("{s:o}", "files", files);
	char *path = NULL, *session = NULL;
	int r = -ENOMEM;

	if (swap)
		json_array_append_new(files, note_file(swap));
	if (socket && asprintf(&session, "%s.session", socket) >= 0) {
		json_array_append_new(files, note_file(socket));
		json_array_append_new(files, note_file(session));
	}
	if (note && asprintf(&path, "%s/" NOTE, dir) >= 0)
		r = json_dump_file(note, path, JSON_INDENT(4)) < 0 ? -errno : 0;
	json_decref(note);
	free(session);
	free(path);
	return r;
}

/* Only if it is still the very file: its name may be someone else's by now. */
static void remove_noted(const json_t *file)
{
	const char *path = json_string_value(json_object_get(file, "path"));
	json_int_t device = json_integer_value(json_object_get(file, "device"));
	json_int_t inode = json_integer_value(json_object_get(file, "inode"));
	struct stat st;

	if (path && lstat(path, &st) == 0 && (json_int_t)st.st_dev == device &&
	    (json_int_t)st.st_ino == inode)
		unlink(path);
}

static void remove_content(int dir_fd, unsigned depth)
{
	DIR *dir = fdopendir(dir_fd);
	struct dirent *entry;

	if (!dir) {
		close(dir_fd);
		return;
	}
	while ((entry = readdir(dir))) {
		int fd;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0) == 0 || depth == DEPTH)
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			remove_content(fd, depth + 1);
		unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
	}
	closedir(dir);
}

void run_directory_remove(const char *path)
{
	int dir = open(path, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char *runs, *note;

	if (dir >= 0 && asprintf(&note, "%s/" NOTE, path) >= 0) {
		json_t *root = json_load_file(note, 0, NULL), *file;
		size_t i;

		json_array_foreach(json_object_get(root, "files"), i, file)
			remove_noted(file);
		json_decref(root);
		free(note);
	}
	if (dir >= 0)
		remove_content(dir, 0);
	rmdir(path);
	runs = place_runs();
	rmdir(runs); /* succeeds after the last run */
	free(runs);
}

static void sweep_one(const char *runs, const char *name)
{
	int dir, lock;
	struct stat st;
	char *path;

	if (asprintf(&path, "%s/%s", runs, name) < 0)
		return;
	dir = open(path, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir >= 0 && fstat(dir, &st) == 0 && st.st_uid == geteuid()) {
		lock = openat(dir, LOCK, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
		if (lock < 0 ? errno == ENOENT && st.st_mtime + YOUNG_S < time(NULL)
			     : name[0] != '.' && flock(lock, LOCK_EX | LOCK_NB) == 0)
			run_directory_remove(path);
		if (lock >= 0)
			close(lock);
	}
	if (dir >= 0)
		close(dir);
	free(path);
}

void run_directories_sweep(void)
{
	char *runs = place_runs();
	DIR *dir = opendir(runs);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			sweep_one(runs, entry->d_name);
	if (dir)
		closedir(dir);
	free(runs);
}
