/*
 * Files as images need them: who a file is, and memfds that hold its pages. And files of the state
 * directory: mapped whole, and sparse.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct file_identity {
	uint64_t device, inode;
	uint64_t size; /* bytes */
};

/* Who is this, and how large? Never asks a file server, which may be a program that doesn't answer.
 * -EINVAL: not a regular file. */
int file_identify(int fd, struct file_identity *ret);

/* O_RDONLY, O_WRONLY or O_RDWR. -EINVAL: reads and writes through it don't go where they are told
 * to, or have rules (O_PATH, O_APPEND, O_DIRECT). */
int file_access(int fd);

/* A memfd of that size, which only our own uid may open. */
int file_memory(const char *name, uint64_t size);
/* A descriptor of the same file that can only be read. */
int file_read_only(int fd);
/* Takes pages out of the file and all mappings of it, copies of privately mapped pages excepted. */
int file_punch(int fd, uint64_t offset, uint64_t length);
/* Is there a page at the offset, or a hole? */
bool file_has_page(int fd, uint64_t offset);
int file_resize(int fd, uint64_t size);

/* Everything at its place; -EIO for a short transfer. */
int file_read(int fd, void *to, uint64_t length, uint64_t offset);
int file_write(int fd, const void *from, uint64_t length, uint64_t offset);

/* Makes the file `name` in directory dir_fd, of zeros, and maps it: what is not touched costs nothing.
 * -EEXIST: the name is in use. */
int file_map_new(int dir_fd, const char *name, uint64_t size, void **ret);
/* Removes it as well. => memory is from file_map_new(), or NULL: then nothing is done. */
void file_unmap(int dir_fd, const char *name, uint64_t size, void *memory);

/* Empty, regular, and open for writing wherever we want: something can be recorded in it. */
bool file_is_fresh(int fd);
