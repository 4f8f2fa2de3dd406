/* What the file behaviours share; see files.c. */
#pragma once

#include "behave.h"
#include "upager/upager.h"

#define SALT 7ul /* of the file as it is at first: page i holds pattern SALT + i */

extern struct upager *pager;
extern int file;

size_t pages(void); /* of the file */
/* Pages [first, first + n) of it. */
char *map_part(unsigned flags, int prot, size_t first, size_t n, size_t unit);
char *map_whole(unsigned flags);
void check_all(const char *at, uint64_t salt);
/* The file's own bytes, past every mapping. */
void check_file(size_t i, uint64_t salt);
/* A call of the library that must succeed. */
void ok(int r, const char *what);
struct upager_stat figures(void);
/* Does reading there raise SIGBUS? */
bool bus_at(volatile char *at);
bool write_fails(volatile char *at); /* the same for a write */
/* Runs in a forked child, which must end well. */
void in_child(void (*run)(char *at), char *at);

extern const struct behaviour row_files[], space_files[];
