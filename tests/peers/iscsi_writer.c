/* Writes records to a tape behind an iSCSI target with libiscsi, as plainly as it can be done: one
 * command after the other. Prints MB/s.
 *
 *   iscsi_writer iscsi://HOST:PORT/IQN/LUN MEGABYTES RECORD
 *
 * No reconnecting: libiscsi would send a WRITE again, which is a block twice on a tape. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

static struct iscsi_context *iscsi;
static int lun;

static int command(unsigned char *cdb, int size, unsigned char *data, int length)
{
    struct iscsi_data out = { .data = data, .size = length };
    struct scsi_task *task;
    int status;

    task = scsi_create_task(size, cdb, length ? SCSI_XFER_WRITE : SCSI_XFER_NONE, length);
    if (task == NULL || iscsi_scsi_command_sync(iscsi, lun, task, length ? &out : NULL) == NULL)
        return -1;
    status = task->status;
    scsi_free_scsi_task(task);
    return status;
}

int main(int argc, char **argv)
{
    struct iscsi_url *url;
    struct timespec began, ended;
    long record, records, i;
    unsigned char *data;
    double seconds;

    if (argc != 4)
        return 2;
    record = atol(argv[3]);
    records = atol(argv[2]) * 1000000L / record;
    data = malloc(record);
    iscsi = iscsi_create_context("iqn.2026-01.test:libiscsi");
    url = iscsi ? iscsi_parse_full_url(iscsi, argv[1]) : NULL;
    if (data == NULL || url == NULL)
        return 1;
    for (i = 0; i < record; i++)
        data[i] = (unsigned char)(rand() >> 8);
    lun = url->lun;
    iscsi_set_targetname(iscsi, url->target);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_noautoreconnect(iscsi, 1);
    if (iscsi_full_connect_sync(iscsi, url->portal, url->lun) != 0) {
        fprintf(stderr, "%s\n", iscsi_get_error(iscsi));
        return 1;
    }
    unsigned char rewind[6] = { 0x01 };
    if (command(rewind, 6, NULL, 0) != 0)
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (i = 0; i < records; i++) {
        unsigned char write[6] = { 0x0a, 0, record >> 16, record >> 8, record, 0 };
        if (command(write, 6, data, record) != 0) {
            fprintf(stderr, "record %ld: %s\n", i, iscsi_get_error(iscsi));
            return 1;
        }
    }
    unsigned char mark[6] = { 0x10, 0, 0, 0, 1, 0 };
    if (command(mark, 6, NULL, 0) != 0)
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &ended);
    seconds = ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9;
    printf("%.1f\n", records * (double)record / 1e6 / seconds);
    iscsi_logout_sync(iscsi);
    return 0;
}
