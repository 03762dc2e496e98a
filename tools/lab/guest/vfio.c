// The guest's eye on PCI devices, without a line of ours between: what vfio-pci and sysfs give a program, and what a device may reach.
//
//   vfio probe BDF           opens the device and says what it has
//   vfio window BDF          says the first word of region 2, and leaves its complement behind it
//   vfio resource BDF        the same, through the file that sysfs has for it, without a driver
//   vfio bell BDF TIMES      an ivshmem device rings itself, vector by vector, and each ring must come as an event
//   vfio hold BDF            keeps the device until the system asks for it back, and gives it
//   vfio edu BDF             qemu's edu device copies memory through the IOMMU, then memory that it may not reach any more
#include <endian.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { VECTORS = 4, PAGE = 4096, PATIENCE_MS = 30000 };

static int container, device;

static void stop(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf(": %m\n");
	exit(1);
}

static void open_device(const char *bdf)
{
	char path[128], target[256] = { 0 };
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group", bdf);
	if (readlink(path, target, sizeof target - 1) < 0)
		stop("%s has no IOMMU group", bdf);
	snprintf(path, sizeof path, "/dev/vfio/%s", strrchr(target, '/') + 1);
	container = open("/dev/vfio/vfio", O_RDWR);
	int group = open(path, O_RDWR);
	if (container < 0 || group < 0)
		stop("cannot open %s", path);
	struct vfio_group_status status = { .argsz = sizeof status };
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) || !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		stop("%s is not viable", path);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		stop("no IOMMU for %s", path);
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (device < 0)
		stop("the group does not give %s", bdf);
}

static struct vfio_region_info region(unsigned index)
{
	struct vfio_region_info info = { .argsz = sizeof info, .index = index };
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
		stop("no region %u", index);
	return info;
}

static volatile void *map(unsigned index)
{
	struct vfio_region_info info = region(index);
	size_t size = info.size < PAGE ? PAGE : info.size;
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, device, info.offset);
	if (at == MAP_FAILED)
		stop("region %u cannot be mapped", index);
	return at;
}

// The device may now begin transfers and interrupts by itself.
static void master(void)
{
	uint16_t command;
	off_t at = region(VFIO_PCI_CONFIG_REGION_INDEX).offset + PCI_COMMAND;
	if (pread(device, &command, 2, at) != 2)
		stop("no configuration space");
	command |= PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY;
	if (pwrite(device, &command, 2, at) != 2)
		stop("the configuration space cannot be written");
}

static void interrupts(unsigned index, int count, int *events)
{
	struct {
		struct vfio_irq_set set;
		int32_t fds[VECTORS];
	} irqs = { .set = { .argsz = sizeof irqs.set + count * sizeof(int32_t), .index = index, .count = count,
			    .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER } };
	for (int i = 0; i < count; i++)
		irqs.fds[i] = events[i] = eventfd(0, EFD_CLOEXEC);
	if (ioctl(device, VFIO_DEVICE_SET_IRQS, &irqs))
		stop("%d interrupts of kind %u are refused", count, index);
}

static int comes(int event)
{
	struct pollfd poller = { .fd = event, .events = POLLIN };
	uint64_t times;
	return poll(&poller, 1, PATIENCE_MS) == 1 && read(event, &times, 8) == 8;
}

static void probe(void)
{
	for (unsigned i = 0; i < 3; i++) {
		struct vfio_region_info info = region(i);
		printf("region %u %llu bytes %s\n", i, (unsigned long long)info.size,
		       info.flags & VFIO_REGION_INFO_FLAG_MMAP ? "mapped" : "called");
	}
	static const char *const names[] = { "INTx", "MSI", "MSI-X", "ERR", "REQ" };
	for (unsigned i = 0; i < 5; i++) {
		struct vfio_irq_info info = { .argsz = sizeof info, .index = i };
		if (!ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info))
			printf("%s %u %s\n", names[i], info.count, info.flags & VFIO_IRQ_INFO_EVENTFD ? "eventfd" : "-");
	}
}

static void exchange(volatile uint64_t *window)
{
	uint64_t word = le64toh(window[0]);
	window[1] = htole64(~word);
	printf("read %016llx\n", (unsigned long long)word);
}

static void resource(const char *bdf)
{
	char path[128];
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/resource2", bdf);
	int file = open(path, O_RDWR | O_SYNC);
	void *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (file < 0 || at == MAP_FAILED)
		stop("%s cannot be mapped", path);
	exchange(at);
}

// The registers of ivshmem: docs/specs/ivshmem-spec of qemu. The one at 8 is our number, the one at 12 rings: number and vector.
static void bell(int times)
{
	volatile uint32_t *registers = map(VFIO_PCI_BAR0_REGION_INDEX);
	int events[VECTORS];
	master();
	interrupts(VFIO_PCI_MSIX_IRQ_INDEX, VECTORS, events);
	uint32_t own = registers[2];
	for (int i = 0; i < times; i++) {
		registers[3] = own << 16 | i % VECTORS;
		if (!comes(events[i % VECTORS]))
			stop("ring %d of number %u did not come at vector %d", i, own, i % VECTORS);
	}
	printf("number %u rang itself %d times on %d vectors\n", own, times, VECTORS);
}

static void hold(void)
{
	int event;
	map(VFIO_PCI_BAR2_REGION_INDEX);
	interrupts(VFIO_PCI_REQ_IRQ_INDEX, 1, &event);
	printf("held\n");
	if (!comes(event))
		stop("nobody asks for the device");
	printf("asked for\n");
}

// The registers of edu: docs/specs/edu of qemu. It has room of its own, and takes 100 ms for a transfer.
enum { EDU_ROOM = 0x40000, EDU_OUT = 1, EDU_IN = 1 | 2, EDU_TELL = 4, EDU_BYTES = PAGE - 4 };

static void transfer(volatile uint8_t *edu, int event, uint64_t from, uint64_t to, int how)
{
	*(volatile uint32_t *)(edu + 0x80) = from;
	*(volatile uint32_t *)(edu + 0x88) = to;
	*(volatile uint32_t *)(edu + 0x90) = EDU_BYTES;
	*(volatile uint32_t *)(edu + 0x98) = how | EDU_TELL;
	if (!comes(event))
		stop("the device does not end its transfer");
	*(volatile uint32_t *)(edu + 0x64) = 0x100;
}

static void allow(void *memory, uint64_t iova)
{
	struct vfio_iommu_type1_dma_map order = { .argsz = sizeof order, .vaddr = (uintptr_t)memory, .iova = iova, .size = PAGE,
						  .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE };
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &order))
		stop("memory is not mapped for the device");
}

static void forbid(uint64_t iova)
{
	struct vfio_iommu_type1_dma_unmap order = { .argsz = sizeof order, .iova = iova, .size = PAGE };
	if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &order))
		stop("memory is not unmapped");
}

// How many bytes of the second page are those of the first, and how many are as they were.
static void compare(const char *when, const uint8_t *memory)
{
	int same = 0, untouched = 0;
	for (int i = 0; i < EDU_BYTES; i++) {
		same += memory[PAGE + i] == memory[i];
		untouched += memory[PAGE + i] == 0xee;
	}
	printf("%s: %d copied, %d untouched, of %d\n", when, same, untouched, EDU_BYTES);
}

static void edu(void)
{
	const uint64_t source = 0x100000, sink = 0x200000;
	volatile uint8_t *registers = map(VFIO_PCI_BAR0_REGION_INDEX);
	uint8_t *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int event;
	if (memory == MAP_FAILED)
		stop("no memory");
	master();
	interrupts(VFIO_PCI_MSI_IRQ_INDEX, 1, &event);
	for (int i = 0; i < PAGE; i++)
		memory[i] = i % 199;
	memset(memory + PAGE, 0xee, PAGE);
	allow(memory, source);
	allow(memory + PAGE, sink);
	transfer(registers, event, source, EDU_ROOM, EDU_OUT);
	transfer(registers, event, EDU_ROOM, sink, EDU_IN);
	compare("mapped", memory);
	memset(memory + PAGE, 0xee, PAGE);
	forbid(sink);
	transfer(registers, event, EDU_ROOM, sink, EDU_IN);
	compare("unmapped", memory);
	allow(memory + PAGE, sink);
	transfer(registers, event, EDU_ROOM, sink, EDU_IN);
	compare("mapped again", memory);
}

int main(int count, char **words)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count < 3)
		return 2;
	const char *what = words[1], *bdf = words[2];
	if (!strcmp(what, "resource")) {
		resource(bdf);
		return 0;
	}
	open_device(bdf);
	if (!strcmp(what, "probe"))
		probe();
	else if (!strcmp(what, "window"))
		exchange(map(VFIO_PCI_BAR2_REGION_INDEX));
	else if (!strcmp(what, "bell") && count > 3)
		bell(atoi(words[3]));
	else if (!strcmp(what, "hold"))
		hold();
	else if (!strcmp(what, "edu"))
		edu();
	else
		return 2;
	return 0;
}
