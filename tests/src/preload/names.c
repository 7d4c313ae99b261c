/* A name server: `moving.test` has the address that the file NAMES holds, or none if that is empty.
   Preloaded into a program. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(
            RTLD_NEXT, "getaddrinfo");
    char address[64] = "";
    if (name && strcmp(name, "moving.test") == 0) {
        const char *path = getenv("NAMES");
        FILE *file = path ? fopen(path, "r") : NULL;
        if (!file) {
            return EAI_AGAIN;
        }
        int read = fscanf(file, "%63s", address);
        fclose(file);
        if (read != 1) {
            return EAI_NONAME;
        }
        name = address;
    }
    return real(name, service, hints, found);
}
