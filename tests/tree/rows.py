#!/usr/bin/env python3
"""The rows of the fault tree: every way in which a fault can end in the kernel's mm/memory.c, and what
becomes of it where the pager answers instead. The one source of docs/tree.md.

  tests/tree/rows.py            prints docs/tree.md
  tests/tree/rows.py --write    writes it

A test names its row: row_24_anonymous_read; they are found by name, in the sources of all tests. Our
functions are FILE:FUNCTION; one that does not exist yet makes the row an open one."""

import collections
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DOCUMENT = os.path.join(ROOT, "docs", "tree.md")
DIAGRAM = os.path.join(ROOT, "src", "pager", "fault.c")

KINDS = {
  "branch": "a branch of fault.c, or of what it calls",
  "kernel": "the kernel does it alone; the pager must not be in its way",
  "unseen": "the kernel does it alone, and no program can tell",
  "impossible": "cannot come to us: the attempt is refused",
}

Row = collections.namedtuple("Row", "number condition kernel ours kind")

SECTIONS = (
  ("Entry", (
    ("1", "no mapping there, or not the right to do this", "arch fault handler: SIGSEGV", "", "kernel"),
    ("2", "hugetlb: nothing mapped, the page is in the file", "hugetlb_no_page", "hugetlb.c:hugetlb_no_page", "branch"),
    ("3", "hugetlb: nothing mapped, nothing in the file", "hugetlb_no_page", "hugetlb.c:hugetlb_no_page", "branch"),
    ("4", "hugetlb: a write to a protected or shared page", "hugetlb_wp", "hugetlb.c:hugetlb_wp", "branch"),
    ("5", "hugetlb: the page is being moved, or is broken", "hugetlb_fault", "", "kernel"),
    ("6", "no memory for a page table", "__pud_alloc, __pmd_alloc", "fill.c:fill_short evict.c:pages_to_keep", "branch"),
  )),
  ("Nothing mapped, a huge page would fit", (
    ("7", "there is no room for it, or the mapping is too small", "do_huge_pmd_anonymous_page: FALLBACK", "fault.c:create_huge_pmd", "branch"),
    ("8", "no memory for what a huge page needs", "do_huge_pmd_anonymous_page: OOM", "fill.c:fill_short", "branch"),
    ("9", "read", "do_huge_pmd_anonymous_page: huge zero page", "fill.c:fill_zero", "branch"),
    ("10", "write", "__do_huge_pmd_anonymous_page", "fill.c:fill_zero", "branch"),
    ("11", "somebody was quicker", "__do_huge_pmd_anonymous_page", "fill.c:fill_refused", "branch"),
    ("12", "a file's mapping with huge pages of its own", "create_huge_pmd: vm_ops->huge_fault", "uffd.c:uffd_register", "impossible"),
  )),
  ("A huge page is mapped", (
    ("13", "it is being split or moved", "pmd_migration_entry_wait", "fault.c:do_busy_page", "branch"),
    ("14", "it was taken out as a hint", "do_huge_pmd_numa_page", "fault.c:do_numa_page", "branch"),
    ("15", "write, protected, ours alone", "do_huge_pmd_wp_page", "fault.c:do_wp_page", "branch"),
    ("16", "write, shared", "do_huge_pmd_wp_page: split", "fault.c:do_wp_page", "branch"),
    ("17", "write to the huge zero page", "do_huge_pmd_wp_page", "fault.c:do_wp_page", "branch"),
    ("18", "write, shared, no memory for a copy", "__split_huge_pmd", "", "kernel"),
    ("19", "the entry has changed meanwhile", "do_huge_pmd_wp_page: pmd_same", "mm/word.h:word_same", "branch"),
    ("20", "it may be touched: only marked young", "huge_pmd_set_accessed", "", "kernel"),
    ("21", "no memory for a page table", "__pte_alloc", "fill.c:fill_short", "branch"),
    ("22", "a huge page has come from elsewhere", "handle_pte_fault: pmd_trans_unstable", "fill.c:fill_refused", "branch"),
  )),
  ("Nothing mapped, anonymous memory", (
    ("23", "below a stack, too near to its neighbour", "expand_stack: SIGSEGV", "", "kernel"),
    ("24", "read", "do_anonymous_page: zero page", "fault.c:do_anonymous_page fill.c:fill_zero", "branch"),
    ("25", "write", "do_anonymous_page: new page", "fault.c:do_anonymous_page fill.c:fill_zero", "branch"),
    ("26", "another thread was quicker", "do_anonymous_page: pte_none", "fill.c:zero_over_marker", "branch"),
    ("27", "no memory", "do_anonymous_page: OOM", "fill.c:fill_short", "branch"),
    ("28", "the address space is going away", "check_stable_address_space", "attach.c:task_end attach.c:return_slots", "branch"),
  )),
  ("Nothing mapped, a file", (
    ("29", "the mapping cannot answer faults", "do_fault: no vm_ops->fault", "", "impossible"),
    ("30", "read, neighbours are cached", "do_fault_around", "fault.c:do_read_fault", "branch"),
    ("31", "read, cached", "do_read_fault", "fault.c:do_read_fault", "branch"),
    ("32", "read, not cached", "filemap_fault", "filemap.c:filemap_read", "branch"),
    ("33", "it is being read", "filemap_fault: lock_folio_maybe_drop_mmap", "filemap.c:filemap_join", "branch"),
    ("34", "past the end of the file", "filemap_fault: SIGBUS", "", "kernel"),
    ("35", "it cannot be read, or there is no memory", "filemap_fault: SIGBUS", "filemap.c:filemap_read", "branch"),
    ("36", "the page in memory is broken", "filemap_fault: HWPOISON", "filemap.c:filemap_map_pages", "branch"),
    ("37", "the entry has changed meanwhile", "finish_fault", "filemap.c:filemap_map_pages", "branch"),
    ("38", "write, private mapping", "do_cow_fault", "fault.c:do_cow_fault", "branch"),
    ("39", "write, shared mapping", "do_shared_fault", "fault.c:do_shared_fault", "branch"),
    ("40", "the file refuses the write", "do_page_mkwrite: SIGBUS", "fault.c:do_shared_fault", "branch"),
  )),
  ("The page has left", (
    ("41", "the message is stale: something else is there now", "do_swap_page: pte_unmap_same", "fill.c:fill_refused", "branch"),
    ("42", "it is just leaving", "migration_entry_wait", "fault.c:do_busy_page", "branch"),
    ("43", "the entry says: broken, guard, or nothing", "do_swap_page: handle_pte_marker", "", "kernel"),
    ("44", "it is still in memory", "do_swap_page: swap cache", "fault.c:do_numa_page fill.c:fill_standby", "branch"),
    ("45", "it has to be read", "do_swap_page: swapin_readahead", "fault.c:do_swap_page swapin.c:fill_read", "branch"),
    ("46", "it cannot be read yet", "do_swap_page: no folio", "swapin.c:fill_slots", "branch"),
    ("47", "it is known to be lost", "do_swap_page: HWPOISON", "fault.c:do_poisoned_page fill.c:fill_poison", "branch"),
    ("48", "it is being read for another", "do_swap_page: folio_lock_or_retry", "fault.c:do_busy_page", "branch"),
    ("49", "its slot has gone to another page", "do_swap_page: folio_test_swapcache", "mm/slots.c:slot_put swapin.c:select_pages", "branch"),
    ("50", "it is read, but there is no memory for it", "do_swap_page: ksm_might_need_to_copy", "swapin.c:install swapin.c:unfill", "branch"),
    ("51", "it is read, but something else is there", "do_swap_page: pte_same", "swapin.c:select_pages swapin.c:install", "branch"),
    ("52", "what was read is not what was written", "do_swap_page: folio_test_uptodate", "swapin.c:lose_page fault.c:do_poisoned_page", "branch"),
    ("53", "write, nobody else has the slot", "do_swap_page: should_try_to_free_swap", "fill.c:fill_commit fill.c:keeps_slot", "branch"),
    ("54", "write, another has the slot, too", "do_swap_page: do_wp_page", "fill.c:fill_commit fork.c:word_share", "branch"),
    ("55", "read: it stays clean", "do_swap_page", "fill.c:fill_commit writeback.c:settles_without_write", "branch"),
  )),
  ("The page is there", (
    ("56", "it was taken out as a hint", "do_numa_page", "fault.c:do_numa_page fill.c:to_the_node", "branch"),
    ("57", "it has come back before the message was read", "handle_pte_fault: pte_same", "fill.c:zero_over_marker", "branch"),
    ("58", "write, shared, no page behind it", "wp_pfn_shared", "", "impossible"),
    ("59", "write to the zero page", "do_wp_page: wp_page_copy", "fault.c:do_wp_page", "branch"),
    ("60", "write, ours alone", "wp_page_reuse", "fault.c:do_wp_page", "branch"),
    ("61", "write, shared with another process", "wp_page_copy", "fault.c:do_wp_page", "branch"),
    ("62", "write, a private mapping's page of the file", "wp_page_copy", "filemap.c:filemap_unprotect", "branch"),
    ("63", "write, a shared mapping", "wp_page_shared", "fault.c:wp_page_shared", "branch"),
    ("64", "no memory for the copy, or it has changed meanwhile", "wp_page_copy: OOM", "", "kernel"),
    ("65", "write, and it may be written", "handle_pte_fault: pte_mkdirty", "", "kernel"),
    ("66", "write, and nothing is left to be done", "flush_tlb_fix_spurious_fault", "fault.c:do_wp_page", "branch"),
    ("67", "read: only marked young", "handle_pte_fault: pte_mkyoung", "", "kernel"),
  )),
  ("The other sides of the table", (
    ("F1", "fork of a page that has left", "copy_nonpresent_pte", "fork.c:word_share fork.c:clone_words", "branch"),
    ("F2", "fork of a page that is there", "copy_present_ptes", "fork.c:fork_task", "branch"),
    ("F3", "discarded or unmapped", "zap_pte_range", "event.c:event_discard event.c:event_drop_word", "branch"),
    ("F4", "which pages leave, and when a slot may be read", "shrink_folio_list", "hand.c:hand_gather writeback.c:settle", "branch"),
    ("F5", "it is taken out of the page table while it is written", "try_to_unmap_one", "writeback.c:writeback_command evict.c:harvest", "branch"),
    ("F6", "there is nothing to write, or nobody to write it for", "swap_writeout: folio_free_swap", "writeback.c:settle", "branch"),
    ("F7", "how long ago did it leave?", "workingset_refault", "fill.c:workingset_refault policy/refault.c:refault_activates", "branch"),
  )),
)

ROWS = [Row(*row) for _, rows in SECTIONS for row in rows]
TEST = re.compile(r"\brow_0*(F?\d+)_\w+")
OWN = ("rows.py", "test_table", "show")  # of this folder: they speak of tests, and have none


def read(path):
  with open(path, errors="replace") as file:
    return file.read()


def test_sources():
  for folder, _, names in os.walk(os.path.join(ROOT, "tests")):
    for name in names:
      path = os.path.join(folder, name)
      own = folder == HERE and name in OWN
      if not own and (name.endswith((".c", ".py")) or (name.startswith("test_") and "." not in name)):
        yield path


def tests():
  """=> row: sorted names of its tests, of all rows that have one."""
  found = collections.defaultdict(set)
  for path in test_sources():
    for match in TEST.finditer(read(path)):
      found[match[1]].add(match[0])
  return {row: sorted(names) for row, names in found.items()}


def source(name):
  """=> the path of FILE in src/, or None; a folder may stand before it."""
  for folder, _, names in os.walk(os.path.join(ROOT, "src")):
    path = os.path.join(folder, os.path.basename(name))
    if os.path.basename(name) in names and path.endswith("/" + name):
      return path
  return None


def functions(path):
  """=> names of the functions that a C file defines."""
  text = re.sub(r"/\*.*?\*/", "", read(path), flags=re.S)
  return re.findall(r"^[a-z][\w \t*]*?\b(\w+)\([^;{}]*?\)\s*\n?\{", text, flags=re.M)


def exists(ours):
  name, _, function = ours.partition(":")
  path = source(name)
  return path is not None and function in functions(path)


def missing(row):
  return [ours for ours in row.ours.split() if not exists(ours)]


def diagram():
  """=> the tree as the first comment of fault.c draws it."""
  comment = read(DIAGRAM).partition("*/")[0]
  lines = [line[3:].rstrip() for line in comment.splitlines()[1:]]
  first = next(i for i, line in enumerate(lines) if line.strip() == "handle_mm_fault")
  last = next(i for i in range(first, len(lines)) if not lines[i].strip())
  return "\n".join(line[2:] for line in lines[first:last])


def cells(row, found):
  names = ", ".join(f"`{name}`" for name in found.get(row.number, ()))
  ours = ", ".join(f"`{name}`" for name in row.ours.split())
  if missing(row):
    ours += " (not yet)"
  return row.number, row.condition, row.kernel, ours or "–", row.kind, names


def document():
  found = tests()
  lines = [
    "# The fault tree",
    "",
    "<!-- Made by tests/tree/rows.py --write; a test checks it. Change the table there. -->",
    "",
    "What the pager decides at a fault, drawn as `src/pager/fault.c` has it:",
    "",
    "```",
    diagram(),
    "```",
    "",
    "And row by row: each way in which a fault can end in the kernel's `mm/memory.c`, with the",
    "kernel's function, ours, and the tests that provoke it. `make tree` runs them. A row is",
    "",
    *(f"- *{kind}*: {meaning}." for kind, meaning in KINDS.items()),
  ]
  for title, rows in SECTIONS:
    lines += ["", f"## {title}", "", "| # | when | in the kernel | here | kind | tests |",
              "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cells(Row(*row), found)) + " |" for row in rows]
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  if sys.argv[1:] == ["--write"]:
    with open(DOCUMENT, "w") as file:
      file.write(document())
  else:
    sys.stdout.write(document())
