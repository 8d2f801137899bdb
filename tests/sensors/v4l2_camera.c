/* A V4L2 camera in user space: preloaded into a process, it answers what the kernel's driver would answer for one node.
 *
 * Everything above the system calls is the real thing (OpenCV's V4L2 backend, poll, select, mapped buffers). The node is
 * the file named by V4L2_CAMERA: deleting it unplugs the camera, and creating it again plugs it in. Pictures are the files
 * 0.MJPG, 1.MJPG, ... and 0.YUYV, ... of the folder V4L2_PICTURES, one per tick, over and over. A file named "silent" in
 * that folder stops them. V4L2_AHEAD_S is added to the stamps, as if the driver used a clock of its own.
 *
 * It knows 640 x 480 and 320 x 240; MJPG (unless V4L2_NO_MJPG is set) at 30 or 60 Hz, YUYV at 10; like real drivers it
 * takes the nearest that it has.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 10
#define BYTES (640 * 480 * 2)

static int file = -1;
static unsigned format = V4L2_PIX_FMT_YUYV, width = 640, height = 480, fps = 30, count, sequence;
static unsigned char *memory[BUFFERS];
static int queue[BUFFERS], queued;
static struct { unsigned id; int low, high, value; } controls[] = {
    {V4L2_CID_EXPOSURE_AUTO, 0, 3, 3}, {V4L2_CID_EXPOSURE_ABSOLUTE, 3, 2047, 250}, {V4L2_CID_GAIN, 0, 255, 0},
    {V4L2_CID_AUTO_WHITE_BALANCE, 0, 1, 1}, {V4L2_CID_WHITE_BALANCE_TEMPERATURE, 2800, 6500, 4000},
    {V4L2_CID_ZOOM_ABSOLUTE, 0, 4095, 0},
};

static int fail(int code) { errno = code; return -1; }

static int plugged(void) { return access(getenv("V4L2_CAMERA"), F_OK) == 0; }

static unsigned rate(void) { return format == V4L2_PIX_FMT_YUYV ? 10 : (fps > 45 ? 60 : 30); }

static void tick(int on) {
    struct itimerspec every = {{0, 0}, {0, 0}};
    if (on) every.it_interval.tv_nsec = every.it_value.tv_nsec = 1000000000L / rate();
    timerfd_settime(file, 0, &every, NULL);
}

static int picture_path(char *path, size_t size, unsigned number) {
    const char *kind = format == V4L2_PIX_FMT_YUYV ? "YUYV" : "MJPG";
    snprintf(path, size, "%s/%u.%s", getenv("V4L2_PICTURES"), number, kind);
    return access(path, F_OK) == 0;
}

static int dequeue(struct v4l2_buffer *buffer) {
    unsigned long long ticks;
    char path[4096];
    if (read(file, &ticks, sizeof ticks) != sizeof ticks || !queued) return fail(EAGAIN);
    unsigned total = 0;
    while (picture_path(path, sizeof path, total)) total++;
    if (!total) return fail(EIO);
    picture_path(path, sizeof path, sequence++ % total);
    int index = queue[0];
    memmove(queue, queue + 1, sizeof queue - sizeof *queue), queued--;
    FILE *picture = fopen(path, "rb");
    buffer->index = index;
    buffer->bytesused = picture ? fread(memory[index], 1, BYTES, picture) : 0;
    if (picture) fclose(picture);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double ahead_s = getenv("V4L2_AHEAD_S") ? atof(getenv("V4L2_AHEAD_S")) : 0;
    double stamp_s = now.tv_sec + now.tv_nsec * 1e-9 + ahead_s;
    buffer->timestamp.tv_sec = (long)stamp_s;
    buffer->timestamp.tv_usec = (long)((stamp_s - (long)stamp_s) * 1e6);
    buffer->length = BYTES;
    buffer->flags = V4L2_BUF_FLAG_MAPPED | V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    return 0;
}

static void fit(struct v4l2_pix_format *asked) {
    if (asked->pixelformat != V4L2_PIX_FMT_MJPEG || getenv("V4L2_NO_MJPG")) asked->pixelformat = V4L2_PIX_FMT_YUYV;
    int small = asked->width <= 320;
    asked->width = small ? 320 : 640, asked->height = small ? 240 : 480;
    asked->field = V4L2_FIELD_NONE;
    asked->bytesperline = asked->width * 2, asked->sizeimage = BYTES;
}

static int answer(unsigned long request, void *data) {
    char silent[4096];
    if (!plugged()) return fail(ENODEV);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *card = data;
        memset(card, 0, sizeof *card);
        strcpy((char *)card->driver, "uvcvideo"), strcpy((char *)card->card, "Test camera");
        card->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        card->capabilities = card->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_G_FMT: case VIDIOC_S_FMT: case VIDIOC_TRY_FMT: {
        struct v4l2_format *asked = data;
        if (request == VIDIOC_G_FMT) asked->fmt.pix = (struct v4l2_pix_format){.width = width, .height = height, .pixelformat = format};
        fit(&asked->fmt.pix);
        if (request == VIDIOC_S_FMT) width = asked->fmt.pix.width, height = asked->fmt.pix.height, format = asked->fmt.pix.pixelformat;
        return 0;
    }
    case VIDIOC_S_PARM: case VIDIOC_G_PARM: {
        struct v4l2_captureparm *pace = &((struct v4l2_streamparm *)data)->parm.capture;
        if (request == VIDIOC_S_PARM) fps = pace->timeperframe.denominator / pace->timeperframe.numerator;
        pace->capability = V4L2_CAP_TIMEPERFRAME;
        pace->timeperframe.numerator = 1, pace->timeperframe.denominator = rate();
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *asked = data;
        if (asked->count > BUFFERS) asked->count = BUFFERS;
        count = asked->count, queued = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = data;
        if (buffer->index >= count) return fail(EINVAL);
        buffer->length = BYTES, buffer->m.offset = buffer->index * BYTES;
        return 0;
    }
    case VIDIOC_QBUF:
        if (queued >= BUFFERS) return fail(EINVAL);
        queue[queued++] = ((struct v4l2_buffer *)data)->index;
        snprintf(silent, sizeof silent, "%s/silent", getenv("V4L2_PICTURES"));
        if (access(silent, F_OK) == 0) tick(0);
        return 0;
    case VIDIOC_DQBUF: return dequeue(data);
    case VIDIOC_STREAMON: tick(1); return 0;
    case VIDIOC_STREAMOFF: tick(0), queued = 0; return 0;
    case VIDIOC_QUERYCTRL: case VIDIOC_G_CTRL: case VIDIOC_S_CTRL:
        for (unsigned i = 0; i < sizeof controls / sizeof *controls; i++) {
            if (controls[i].id != *(unsigned *)data) continue;
            if (request == VIDIOC_QUERYCTRL) {
                struct v4l2_queryctrl *asked = data;
                asked->minimum = controls[i].low, asked->maximum = controls[i].high, asked->step = 1;
                return 0;
            }
            struct v4l2_control *asked = data;
            if (request == VIDIOC_S_CTRL) {
                int value = asked->value < controls[i].low ? controls[i].low : asked->value;
                controls[i].value = value > controls[i].high ? controls[i].high : value;
            }
            asked->value = controls[i].value;
            return 0;
        }
        return fail(EINVAL);
    }
    return fail(ENOTTY);
}

static int open_any(const char *name, const char *path, int flags, int mode) {
    const char *node = getenv("V4L2_CAMERA");
    if (node && strcmp(path, node) == 0) {
        if (!plugged()) return fail(ENOENT);
        sequence = 0;
        return file = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    }
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
    return real(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return open_any("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return open_any("open64", path, flags, mode);
}

int ioctl(int descriptor, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *data = va_arg(rest, void *);
    va_end(rest);
    if (descriptor >= 0 && descriptor == file) return answer(request, data);
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    return real(descriptor, request, data);
}

static void *map_any(const char *name, void *where, size_t length, int guard, int flags, int descriptor, off_t offset) {
    void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, name);
    if (descriptor < 0 || descriptor != file) return real(where, length, guard, flags, descriptor, offset);
    void *got = real(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory[offset / BYTES] = got;
    return got;
}

void *mmap(void *where, size_t length, int guard, int flags, int descriptor, off_t offset) {
    return map_any("mmap", where, length, guard, flags, descriptor, offset);
}

void *mmap64(void *where, size_t length, int guard, int flags, int descriptor, off_t offset) {
    return map_any("mmap64", where, length, guard, flags, descriptor, offset);
}

int close(int descriptor) {
    if (descriptor >= 0 && descriptor == file) file = -1;
    int (*real)(int) = dlsym(RTLD_NEXT, "close");
    return real(descriptor);
}
