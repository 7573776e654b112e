/* SPDX-License-Identifier: Apache-2.0 */
#include "jit_places.h"
#include "log.h"
#include "sha256.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t finding = PTHREAD_MUTEX_INITIALIZER;
static struct gv_jit_places places; /* written once, under `finding` */
static bool found;

/* Paths are cut at PATH_MAX; what was cut is not found. */
__attribute__((format(printf, 2, 3))) static void path_of(char *path, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, PATH_MAX, format, arguments);
    va_end(arguments);
}

static bool exists(const char *folder, const char *name)
{
    char path[PATH_MAX];
    path_of(path, "%s/%s", folder, name);
    return access(path, R_OK) == 0;
}

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : otherwise;
}

/* Folder of this library. */
static void own_folder(char folder[PATH_MAX])
{
    Dl_info info;
    char real[PATH_MAX];
    path_of(folder, ".");
    if (dladdr((void *)own_folder, &info) != 0 && info.dli_fname != NULL && realpath(info.dli_fname, real) != NULL) {
        char *slash = strrchr(real, '/');
        if (slash != NULL)
            *slash = '\0';
        path_of(folder, "%s", real);
    }
}

static bool add_file(struct gv_sha256 *hash, const char *path)
{
    char buffer[16384];
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return false;
    size_t got;
    uint64_t total = 0;
    while ((got = fread(buffer, 1, sizeof buffer, file)) > 0) {
        gv_sha256_add(hash, buffer, got);
        total += got;
    }
    gv_sha256_add(hash, &total, sizeof total);
    fclose(file);
    return true;
}

static int wanted(const struct dirent *entry)
{
    const char *end = strrchr(entry->d_name, '.');
    return entry->d_name[0] != '.' &&
           (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN || entry->d_type == DT_LNK ||
            (end != NULL && (strcmp(end, ".py") == 0 || strcmp(end, ".h") == 0)));
}

/* Contents of all .py and kernel_*.h below, in order of name. */
static void add_folder(struct gv_sha256 *hash, const char *folder, bool headers, int depth)
{
    struct dirent **entries;
    const int count = scandir(folder, &entries, wanted, alphasort);
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        struct stat status;
        const char *name = entries[i]->d_name;
        path_of(path, "%s/%s", folder, name);
        const size_t length = strlen(name);
        const bool python = length > 3 && strcmp(name + length - 3, ".py") == 0;
        const bool header = strncmp(name, "kernel_", 7) == 0 && strcmp(name + length - 2, ".h") == 0;
        if (stat(path, &status) == 0) {
            if (S_ISDIR(status.st_mode) && !headers && depth < 4 && strncmp(name, "__", 2) != 0) {
                add_folder(hash, path, headers, depth + 1);
            } else if (S_ISREG(status.st_mode) && (headers ? header : python)) {
                gv_sha256_add_field(hash, name, length);
                add_file(hash, path);
            }
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* The compiler by path, size and time: asking it for its version costs a process. */
static void add_program(struct gv_sha256 *hash, const char *program)
{
    const char *search = strchr(program, '/') != NULL ? "" : getenv("PATH");
    char copy[8192], path[PATH_MAX], real[PATH_MAX], *rest = NULL;
    struct stat status;
    snprintf(copy, sizeof copy, "%s", search != NULL ? search : "/usr/bin:/bin");
    path_of(path, "%s", program);
    if (*copy != '\0')
        for (char *folder = strtok_r(copy, ":", &rest); folder != NULL; folder = strtok_r(NULL, ":", &rest)) {
            path_of(path, "%s/%s", folder, program);
            if (access(path, X_OK) == 0)
                break;
        }
    if (realpath(path, real) != NULL && stat(real, &status) == 0) {
        char text[PATH_MAX + 96];
        const int length = snprintf(text, sizeof text, "%s %lld %lld.%09ld", real, (long long)status.st_size,
                                    (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
        gv_sha256_add_field(hash, text, (size_t)length);
    }
}

static bool make_folder(const char *path)
{
    char part[PATH_MAX];
    path_of(part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(part, 0700);
        *slash = '/';
    }
    return mkdir(part, 0700) == 0 || errno == EEXIST;
}

/* Others could put code into a folder that is not ours alone. */
static bool find_cache(char *error, size_t room)
{
    const char *home = setting("HOME", NULL), *base = getenv("XDG_CACHE_HOME");
    const char *chosen = getenv("GPUVIRT_SOFTGPU_CACHE");
    if (chosen != NULL && *chosen != '\0')
        path_of(places.cache, "%s", chosen);
    else if (base != NULL && *base == '/')
        path_of(places.cache, "%s/gpuvirt/softgpu", base);
    else if (home != NULL)
        path_of(places.cache, "%s/.cache/gpuvirt/softgpu", home);
    else /* a name of its own: the first user without a home shall not take it from the others */
        path_of(places.cache, "/tmp/gpuvirt-softgpu-cache-%u", (unsigned)geteuid());
    struct stat status;
    errno = 0;
    if (!make_folder(places.cache) || lstat(places.cache, &status) != 0 || !S_ISDIR(status.st_mode)) {
        snprintf(error, room, "cannot make the cache folder %.900s: %s; set GPUVIRT_SOFTGPU_CACHE", places.cache,
                 strerror(errno == EEXIST ? ENOTDIR : errno));
        return false;
    }
    if (status.st_uid != geteuid()) {
        snprintf(error, room, "the cache folder %.900s belongs to another user; set GPUVIRT_SOFTGPU_CACHE",
                 places.cache);
        return false;
    }
    if ((status.st_mode & 022) != 0) {
        snprintf(error, room,
                 "the cache folder %.900s can be written by others; chmod 700 it, or set GPUVIRT_SOFTGPU_CACHE",
                 places.cache);
        return false;
    }
    return true;
}

static bool find_all(char *error, size_t room)
{
    char folder[PATH_MAX], translator[PATH_MAX];
    own_folder(folder);
    path_of(translator, "%s/../../softgpu", folder);
    const char *chosen = setting("GPUVIRT_SOFTGPU_TRANSLATOR", NULL);
    if (chosen != NULL)
        path_of(translator, "%s", chosen);
    else if (!exists(translator, "__main__.py"))
        path_of(translator, "%s", GV_SOURCE_TRANSLATOR);
    if (!exists(translator, "__main__.py")) {
        snprintf(error, room,
                 "no PTX translator in %.900s; set GPUVIRT_SOFTGPU_TRANSLATOR to the folder gpuvirt/softgpu",
                 translator);
        return false;
    }
    path_of(places.include, "%s/include", folder);
    if (!exists(places.include, "kernel_abi.h"))
        path_of(places.include, "%s", GV_SOURCE_INCLUDE);
    path_of(places.translator, "%s/__main__.py", translator);
    path_of(places.python, "%s", setting("GPUVIRT_SOFTGPU_PYTHON", "python3"));
    path_of(places.compiler, "%s", setting("GPUVIRT_SOFTGPU_CC", "cc"));
    places.keep = getenv("GPUVIRT_SOFTGPU_KEEP") != NULL;
    struct gv_sha256 hash;
    gv_sha256_start(&hash);
    add_folder(&hash, translator, false, 0);
    add_folder(&hash, places.include, true, 0);
    add_program(&hash, places.compiler);
    gv_sha256_end(&hash, places.identity);
    return find_cache(error, room);
}

const struct gv_jit_places *gv_jit_find_places(char *error, size_t room)
{
    pthread_mutex_lock(&finding);
    if (!found) {
        found = find_all(error, room);
        if (!found)
            gv_log_error("%s", error);
    }
    const bool ready = found;
    pthread_mutex_unlock(&finding);
    return ready ? &places : NULL;
}
