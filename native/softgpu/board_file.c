/* SPDX-License-Identifier: Apache-2.0
 *
 * The board file: made by whoever comes first, mapped by all. Layout and rules in board.h.
 */
#include "board.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t gv_board_parse_bytes(const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || errno != 0)
        return 0;
    switch (*end) {
    case 'k':
    case 'K':
        value <<= 10;
        end++;
        break;
    case 'm':
    case 'M':
        value <<= 20;
        end++;
        break;
    case 'g':
    case 'G':
        value <<= 30;
        end++;
        break;
    default:
        break;
    }
    if (*end == 'i')
        end++;
    if (*end == 'B')
        end++;
    return *end == '\0' ? value : 0;
}

static void board_path(char path[PATH_MAX])
{
    const char *chosen = getenv("GPUVIRT_SOFTGPU_BOARD");
    if (chosen != NULL && *chosen != '\0')
        snprintf(path, PATH_MAX, "%s", chosen);
    else
        snprintf(path, PATH_MAX, "/dev/shm/gpuvirt-softgpu-%u", (unsigned)geteuid());
}

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : NULL;
}

static bool is_whole(const char *text, int base, long *value)
{
    char *end;
    errno = 0;
    *value = strtol(text, &end, base);
    return end != text && *end == '\0' && errno == 0;
}

/* Its profile, models and memory, as the environment has it. */
static bool initialise_device(struct gv_board_device *device, int number)
{
    const char *memory = setting("GPUVIRT_SOFTGPU_MEMORY"), *scale = setting("GPUVIRT_SOFTGPU_MEMORY_SCALE");
    struct gv_model_wish wish = {.models = setting("GPUVIRT_SOFTGPU_MODEL"), .scale = 1};
    wish.profile = gv_model_profile(setting("GPUVIRT_SOFTGPU_PROFILE"), number);
    if (wish.profile == NULL)
        return false;
    const uint64_t unit = 2ull << 20;
    const double full = (double)wish.profile->memory_bytes;
    char *end = NULL;
    if (scale != NULL && (!((wish.scale = strtod(scale, &end)) > 0) || *end != '\0' || wish.scale > 1000)) {
        gv_log_error("GPUVIRT_SOFTGPU_MEMORY_SCALE=%s: must be a factor above 0, for example 0.01", scale);
        return false;
    }
    const uint64_t bytes =
        (memory != NULL ? gv_board_parse_bytes(memory) : (uint64_t)(full * wish.scale)) & ~(unit - 1);
    if (bytes == 0) {
        const char *name = memory != NULL ? "MEMORY" : "MEMORY_SCALE", *value = memory != NULL ? memory : scale;
        gv_log_error("GPUVIRT_SOFTGPU_%s=%s: the device must have at least 2M, for example 512M", name,
                     value != NULL ? value : "");
        return false;
    }
    if (memory != NULL)
        wish.scale = (double)bytes / full;
    if (!gv_model_read(&device->model, &wish))
        return false;
    if (device->model.reserved_bytes >= bytes) {
        gv_log_error("the driver would reserve all of the device's %llu bytes: give it more memory",
                     (unsigned long long)bytes);
        return false;
    }
    device->memory_bytes = bytes - device->model.reserved_bytes;
    if (getrandom(device->uuid, sizeof device->uuid, 0) != (ssize_t)sizeof device->uuid)
        return false;
    device->uuid[6] = (uint8_t)((device->uuid[6] & 0x0f) | 0x40); /* a version 4 UUID */
    device->uuid[8] = (uint8_t)((device->uuid[8] & 0x3f) | 0x80);
    return true;
}

static bool initialise_board(struct gv_board *board)
{
    const char *devices = setting("GPUVIRT_SOFTGPU_DEVICES"), *slice = setting("GPUVIRT_SOFTGPU_SLICE_US");
    long count = gv_model_profiles(setting("GPUVIRT_SOFTGPU_PROFILE")), slice_us = 2000;
    if (devices != NULL && !is_whole(devices, 10, &count))
        count = 0;
    if (count < 1 || count > GV_BOARD_DEVICES) {
        gv_log_error("GPUVIRT_SOFTGPU_DEVICES=%s: must be 1 to %d", devices != NULL ? devices : "", GV_BOARD_DEVICES);
        return false;
    }
    if (slice != NULL && (!is_whole(slice, 10, &slice_us) || slice_us < 1 || slice_us > 1000000)) {
        gv_log_error("GPUVIRT_SOFTGPU_SLICE_US=%s: must be 1 to 1000000 microseconds", slice);
        return false;
    }
    board->version = GV_BOARD_VERSION;
    board->size = sizeof *board;
    board->made_ns = gv_board_now_ns();
    board->device_count = (uint32_t)count;
    board->slice_us = (uint32_t)slice_us;
    for (int i = 0; i < (int)count; i++)
        if (!initialise_device(&board->devices[i], i))
            return false;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&board->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    board->magic = GV_BOARD_MAGIC;
    return true;
}

/* A file without a name, or (where the file system has no such thing) of a temporary one. */
static int open_nameless(const char *path, char temporary[PATH_MAX + 32])
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        snprintf(folder, sizeof folder, ".");
    else
        slash[slash == folder] = '\0';
    temporary[0] = '\0';
    int fd = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
        snprintf(temporary, PATH_MAX + 32, "%s.%d.new", path, (int)getpid());
        fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    return fd;
}

static int give_name(int fd, const char *temporary, const char *path)
{
    char nameless[64];
    if (temporary[0] != '\0')
        return link(temporary, path);
    snprintf(nameless, sizeof nameless, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, nameless, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

/* Written completely, then named: nobody ever sees half a board, of two creators one wins, and one that is killed leaves
 * nothing behind. */
static bool create_board(const char *path)
{
    char temporary[PATH_MAX + 32];
    const char *mode_text = setting("GPUVIRT_SOFTGPU_BOARD_MODE");
    long mode = 0600;
    if (mode_text != NULL && (!is_whole(mode_text, 8, &mode) || (mode & ~0666l) != 0 || (mode & 0600) != 0600)) {
        gv_log_error("GPUVIRT_SOFTGPU_BOARD_MODE=%s: must be octal permissions with 0600 in them, for example 0666",
                     mode_text);
        return false;
    }
    const int fd = open_nameless(path, temporary);
    if (fd < 0) {
        gv_log_error("cannot create the board %s: %s; set GPUVIRT_SOFTGPU_BOARD to a path on tmpfs", path,
                     strerror(errno));
        return false;
    }
    bool done = false;
    /* Space for all of it now: a full /dev/shm is then an error here, and not a SIGBUS at the first write. */
    const int full = posix_fallocate(fd, 0, sizeof(struct gv_board));
    if (full != 0)
        gv_log_error("cannot create the board %s: %s (it needs %zu KiB)", path, strerror(full),
                     sizeof(struct gv_board) / 1024);
    if (full == 0 && fchmod(fd, (mode_t)mode) == 0) {
        struct gv_board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (board != MAP_FAILED) {
            done = initialise_board(board);
            munmap(board, sizeof *board);
        }
    }
    if (done && give_name(fd, temporary, path) != 0 && errno != EEXIST) {
        gv_log_error("cannot create the board %s: %s", path, strerror(errno));
        done = false;
    }
    if (temporary[0] != '\0')
        unlink(temporary);
    close(fd);
    return done;
}

struct gv_board *gv_board_map(void)
{
    char path[PATH_MAX];
    board_path(path);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        if (!create_board(path))
            return NULL;
        fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    }
    if (fd < 0) {
        gv_log_error("cannot open the board %s: %s", path, strerror(errno));
        return NULL;
    }
    struct stat status;
    struct gv_board *board = NULL;
    uint32_t magic = 0;
    if (pread(fd, &magic, sizeof magic, 0) != (ssize_t)sizeof magic)
        magic = 0;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == (off_t)sizeof *board)
        board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (board == NULL && magic != GV_BOARD_MAGIC) {
        gv_log_error("%s is not the file of a soft GPU; name another with GPUVIRT_SOFTGPU_BOARD or --board", path);
        return NULL;
    }
    if (board == NULL || board == MAP_FAILED || board->magic != GV_BOARD_MAGIC || board->version != GV_BOARD_VERSION ||
        board->size != sizeof *board) {
        gv_log_error("%s is no board of this version; 'gpuvirt soft-gpu remove --board %s' removes it", path, path);
        return NULL;
    }
    return board;
}
