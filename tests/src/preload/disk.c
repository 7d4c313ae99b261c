/* A disk that takes FSYNC_MS for each fsync, and writes into the file FSYNC_RECORD what it is sure of
   after it: a file's inode and how many bytes of it. Preloaded into a server. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int flush(const char *how, int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, how);
    const char *ms = getenv("FSYNC_MS");
    const char *record = getenv("FSYNC_RECORD");
    struct stat before;
    /* What is written while it is being flushed may be lost. */
    int known = fstat(file, &before);
    usleep(1000 * (ms ? atoi(ms) : 0));
    int result = real(file);
    if (record && known == 0 && result == 0) {
        int to = open(record, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (to >= 0) {
            dprintf(to, "%lu %ld\n", (unsigned long)before.st_ino, (long)before.st_size);
            close(to);
        }
    }
    return result;
}

int fdatasync(int file) {
    return flush("fdatasync", file);
}

int fsync(int file) {
    return flush("fsync", file);
}
