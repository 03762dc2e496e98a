// The guest's side of the lab: does one verb at a time as the lab says, through Debian's libibverbs and the kernel's rdma_rxe.
//
//   verbs link NAME NETDEV   makes a soft RoCE device on a network device
//   verbs serve HOST PORT    connects to the lab and obeys: lines in, one line out for each, beginning with "ok" or "error"
#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <inttypes.h>
#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MEMORY = 4 << 20, DEPTH = 256 };

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp;
static struct ibv_ah *ah;
static struct ibv_mw *mw;
static struct ibv_mr *mr;
static uint8_t *memory;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void put_attribute(struct nlmsghdr *message, int type, const char *text)
{
	struct nlattr *attribute = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));
	attribute->nla_type = type;
	attribute->nla_len = NLA_HDRLEN + strlen(text) + 1;
	strcpy((char *)attribute + NLA_HDRLEN, text);
	message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + NLA_ALIGN(attribute->nla_len);
}

static int add_link(const char *name, const char *netdev)
{
	char buffer[4096] = { 0 };
	struct nlmsghdr *message = (void *)buffer;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA);
	message->nlmsg_len = NLMSG_HDRLEN;
	message->nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_NEWLINK);
	message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	put_attribute(message, RDMA_NLDEV_ATTR_DEV_NAME, name);
	put_attribute(message, RDMA_NLDEV_ATTR_LINK_TYPE, "rxe");
	put_attribute(message, RDMA_NLDEV_ATTR_NDEV_NAME, netdev);
	if (fd < 0 || send(fd, buffer, message->nlmsg_len, 0) < 0 || recv(fd, buffer, sizeof buffer, 0) < (int)NLMSG_LENGTH(4)) {
		perror("verbs link");
		return 1;
	}
	int error = ((struct nlmsgerr *)NLMSG_DATA(message))->error;
	if (error)
		fprintf(stderr, "verbs link: %s\n", strerror(-error));
	return error != 0;
}

static uint8_t pattern(uint32_t i, uint32_t seed)
{
	return i * 31 + (i >> 8) * 7 + seed;
}

// A hexadecimal GID without colons.
static union ibv_gid gid_of(const char *hex)
{
	union ibv_gid gid;
	for (int i = 0; i < 16; i++) {
		unsigned byte = 0;
		sscanf(hex + 2 * i, "%2x", &byte);
		gid.raw[i] = byte;
	}
	return gid;
}

static void forget_qp(void)
{
	struct ibv_wc wc;
	if (qp)
		ibv_destroy_qp(qp);
	if (mw)
		ibv_dealloc_mw(mw);
	if (ah)
		ibv_destroy_ah(ah);
	qp = NULL;
	mw = NULL;
	ah = NULL;
	while (ibv_poll_cq(cq, 1, &wc) > 0)
		;
}

static int create_qp(const char *type, unsigned access, unsigned qkey)
{
	enum ibv_qp_type kind = !strcmp(type, "rc") ? IBV_QPT_RC : !strcmp(type, "uc") ? IBV_QPT_UC : IBV_QPT_UD;
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = kind, .sq_sig_all = 0,
		.cap = { .max_send_wr = DEPTH, .max_recv_wr = DEPTH, .max_send_sge = 2, .max_recv_sge = 2 } };
	forget_qp();
	qp = ibv_create_qp(pd, &init);
	if (!qp)
		return errno;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = access, .qkey = qkey };
	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
			     (kind == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));
}

struct path {
	unsigned mtu, peer, rq_psn, sq_psn, sgid, timeout, retry, rnr_retry, min_rnr, reads, served;
	char gid[40];
};

static int to_rts(const struct path *p)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTR, .path_mtu = p->mtu, .dest_qp_num = p->peer, .rq_psn = p->rq_psn,
		.max_dest_rd_atomic = p->served, .min_rnr_timer = p->min_rnr,
		.ah_attr = { .is_global = 1, .port_num = 1, .grh = { .dgid = gid_of(p->gid), .sgid_index = p->sgid, .hop_limit = 64 } } };
	int rc = qp->qp_type == IBV_QPT_RC, ud = qp->qp_type == IBV_QPT_UD;
	int mask = IBV_QP_STATE;
	if (ud) {
		ah = ibv_create_ah(pd, &attr.ah_attr);
		if (!ah)
			return errno;
	} else {
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	}
	int error = ibv_modify_qp(qp, &attr, mask | (rc ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0));
	if (error)
		return error;
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = p->timeout, .retry_cnt = p->retry, .rnr_retry = p->rnr_retry,
		.sq_psn = p->sq_psn, .max_rd_atomic = p->reads };
	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN |
			     (rc ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0));
}

struct work {
	unsigned opcode, flags, offset, length, rkey, imm, peer, qkey;
	uint64_t id, addr, compare_add, swap;
};

static int post_send(const struct work *w)
{
	struct ibv_sge sge = { (uintptr_t)memory + w->offset, w->length, mr->lkey };
	struct ibv_send_wr wr = { .wr_id = w->id, .sg_list = &sge, .num_sge = w->length ? 1 : 0, .opcode = w->opcode, .send_flags = w->flags }, *bad;
	if (w->opcode == IBV_WR_SEND_WITH_INV)
		wr.invalidate_rkey = w->imm;
	else
		wr.imm_data = htonl(w->imm);
	if (qp->qp_type == IBV_QPT_UD) {
		wr.wr.ud.ah = ah;
		wr.wr.ud.remote_qpn = w->peer;
		wr.wr.ud.remote_qkey = w->qkey;
	} else if (w->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || w->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
		wr.wr.atomic.remote_addr = w->addr;
		wr.wr.atomic.rkey = w->rkey;
		wr.wr.atomic.compare_add = w->compare_add;
		wr.wr.atomic.swap = w->swap;
	} else {
		wr.wr.rdma.remote_addr = w->addr;
		wr.wr.rdma.rkey = w->rkey;
	}
	return ibv_post_send(qp, &wr, &bad);
}

static int post_recv(uint64_t id, unsigned offset, unsigned length)
{
	struct ibv_sge sge = { (uintptr_t)memory + offset, length, mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = id, .sg_list = &sge, .num_sge = length ? 1 : 0 }, *bad;
	return ibv_post_recv(qp, &wr, &bad);
}

// A memory window that a peer's SEND with invalidate can take away: on rxe regions of user space cannot be.
static int bind_window(unsigned offset, unsigned length, unsigned access)
{
	mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	if (!mw)
		return errno;
	struct ibv_send_wr wr = { .wr_id = ~0ull, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED }, *bad;
	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
	wr.bind_mw.bind_info = (struct ibv_mw_bind_info){ mr, (uintptr_t)memory + offset, length, access };
	int error = ibv_post_send(qp, &wr, &bad);
	if (!error)
		mw->rkey = wr.bind_mw.rkey;
	return error;
}

static int inside(unsigned offset, unsigned length)
{
	return offset <= MEMORY && length <= MEMORY - offset;
}

// One order: fills in the answer.
static void obey(const char *line, char *answer, size_t size)
{
	char word[16] = "", type[8];
	unsigned a, b, c;
	uint64_t wide;
	struct path p;
	struct work w;
	int used = 0, error = EINVAL;
	sscanf(line, "%15s%n", word, &used);
	line += used;
	if (!strcmp(word, "memory")) {
		snprintf(answer, size, "ok %" PRIuPTR " %u %u", (uintptr_t)memory, mr->rkey, MEMORY);
		return;
	} else if (!strcmp(word, "gid") && sscanf(line, "%u", &a) == 1) {
		union ibv_gid gid;
		char hex[33] = "";
		error = ibv_query_gid(context, 1, a, &gid);
		for (int i = 0; i < 16 && !error; i++)
			sprintf(hex + 2 * i, "%02x", gid.raw[i]);
		if (!error) {
			snprintf(answer, size, "ok %s", hex);
			return;
		}
	} else if (!strcmp(word, "qp") && sscanf(line, "%7s %u %u", type, &a, &b) == 3) {
		error = create_qp(type, a, b);
		if (!error) {
			snprintf(answer, size, "ok %u", qp->qp_num);
			return;
		}
	} else if (!strcmp(word, "rts") && sscanf(line, "%u %u %u %u %u %u %u %u %u %u %u %39s", &p.mtu, &p.peer, &p.rq_psn, &p.sq_psn, &p.sgid,
						  &p.timeout, &p.retry, &p.rnr_retry, &p.min_rnr, &p.reads, &p.served, p.gid) == 12 && qp) {
		error = to_rts(&p);
	} else if (!strcmp(word, "state") && qp) {
		struct ibv_qp_attr attr;
		struct ibv_qp_init_attr init;
		error = ibv_query_qp(qp, &attr, IBV_QP_STATE, &init);
		if (!error) {
			snprintf(answer, size, "ok %u", attr.qp_state);
			return;
		}
	} else if (!strcmp(word, "send") && sscanf(line, "%" SCNu64 " %u %u %u %u %" SCNu64 " %u %u %" SCNu64 " %" SCNu64 " %u %u", &w.id, &w.opcode, &w.flags,
						   &w.offset, &w.length, &w.addr, &w.rkey, &w.imm, &w.compare_add, &w.swap, &w.peer, &w.qkey) == 12 &&
		   qp && inside(w.offset, w.length)) {
		error = post_send(&w);
	} else if (!strcmp(word, "recv") && sscanf(line, "%" SCNu64 " %u %u", &wide, &a, &b) == 3 && qp && inside(a, b)) {
		error = post_recv(wide, a, b);
	} else if (!strcmp(word, "bind") && sscanf(line, "%u %u %u", &a, &b, &c) == 3 && qp && inside(a, b)) {
		error = bind_window(a, b, c);
		if (!error) {
			snprintf(answer, size, "ok %u", mw->rkey);
			return;
		}
	} else if (!strcmp(word, "poll") && sscanf(line, "%u", &a) == 1) {
		struct ibv_wc wc;
		double end = now() + a / 1e3;
		int got;
		while ((got = ibv_poll_cq(cq, 1, &wc)) == 0 && now() < end)
			usleep(50);
		// rxe tells the kernel's numbers of the flags, in which 4 is "with invalidation".
		if (got == 1 && wc.wc_flags & IBV_WC_IP_CSUM_OK)
			wc.wc_flags ^= IBV_WC_IP_CSUM_OK | IBV_WC_WITH_INV;
		if (got == 1)
			snprintf(answer, size, "ok %" PRIu64 " %u %u %u %u %u %u", wc.wr_id, wc.status, wc.opcode, wc.byte_len,
				 wc.wc_flags & IBV_WC_WITH_INV ? wc.invalidated_rkey : ntohl(wc.imm_data), wc.wc_flags, wc.src_qp);
		else
			snprintf(answer, size, "ok none");
		return;
	} else if (!strcmp(word, "fill") && sscanf(line, "%u %u %u", &a, &b, &c) == 3 && inside(a, b)) {
		for (unsigned i = 0; i < b; i++)
			memory[a + i] = pattern(i, c);
		error = 0;
	} else if (!strcmp(word, "clear") && sscanf(line, "%u %u", &a, &b) == 2 && inside(a, b)) {
		memset(memory + a, 0, b);
		error = 0;
	} else if (!strcmp(word, "check") && sscanf(line, "%u %u %u", &a, &b, &c) == 3 && inside(a, b)) {
		unsigned i = 0;
		while (i < b && memory[a + i] == pattern(i, c))
			i++;
		snprintf(answer, size, "ok %u", i);
		return;
	} else if (!strcmp(word, "store") && sscanf(line, "%u %" SCNu64, &a, &wide) == 2 && inside(a, 8)) {
		memcpy(memory + a, &wide, 8);
		error = 0;
	} else if (!strcmp(word, "load") && sscanf(line, "%u", &a) == 1 && inside(a, 8)) {
		memcpy(&wide, memory + a, 8);
		snprintf(answer, size, "ok %" PRIu64, wide);
		return;
	}
	if (error)
		snprintf(answer, size, "error %s: %s", word, strerror(error));
	else
		snprintf(answer, size, "ok");
}

static int serve(const char *host, const char *port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
	inet_pton(AF_INET, host, &to.sin_addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0), devices;
	if (connect(fd, (void *)&to, sizeof to)) {
		perror("verbs serve: connect");
		return 1;
	}
	struct ibv_device **list = ibv_get_device_list(&devices);
	if (!list || !devices || !(context = ibv_open_device(list[0])) || !(pd = ibv_alloc_pd(context)) ||
	    !(cq = ibv_create_cq(context, 2 * DEPTH + 1, NULL, NULL, 0))) {
		perror("verbs serve: no RDMA device");
		return 1;
	}
	memory = aligned_alloc(4096, MEMORY);
	memset(memory, 0, MEMORY);
	mr = ibv_reg_mr(pd, memory, MEMORY, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND);
	if (!mr) {
		perror("verbs serve: ibv_reg_mr");
		return 1;
	}
	FILE *in = fdopen(fd, "r");
	char line[512], answer[512];
	while (fgets(line, sizeof line, in)) {
		obey(line, answer, sizeof answer - 1);
		strcat(answer, "\n");
		if (write(fd, answer, strlen(answer)) < 0)
			break;
	}
	forget_qp();
	return 0;
}

int main(int count, char **argument)
{
	if (count == 4 && !strcmp(argument[1], "link"))
		return add_link(argument[2], argument[3]);
	if (count == 4 && !strcmp(argument[1], "serve"))
		return serve(argument[2], argument[3]);
	fprintf(stderr, "usage: verbs link NAME NETDEV | verbs serve HOST PORT\n");
	return 2;
}
