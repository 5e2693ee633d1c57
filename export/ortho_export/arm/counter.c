/* A QEMU plugin that counts executed instructions and writes the count at every call of getppid,
 * with which the runner marks where inferences begin and end: one line each, into the file `out`.
 * No header of QEMU is needed: Debian ships none, and these few functions are its stable part. */

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define GETPPID 173 /* of 64-bit Arm Linux */
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct block;

extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct block *, void (*)(unsigned, void *), int,
                                                 void *);
extern void qemu_plugin_register_vcpu_syscall_cb(
    plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t, uint64_t));

EXPORT int qemu_plugin_version = PLUGIN_API;

static uint64_t count;
static FILE *out;

static void executed(unsigned cpu, void *instructions) { count += (uintptr_t)instructions; }

static void translated(plugin_id id, struct block *block) {
  qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0,
                                       (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  if (number != GETPPID) return;
  fprintf(out, "%llu\n", (unsigned long long)count);
  fflush(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) return -1;
  out = fopen(argv[0] + 4, "w");
  if (out == NULL) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
