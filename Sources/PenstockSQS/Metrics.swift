// SPDX-License-Identifier: Apache-2.0
import Penstock

/// What the store takes and what is damaged in it, in the Prometheus text format: the answer to
/// `GET /penstock/metrics`, which is no queue's URL.
enum Metrics {
  static let path = "/penstock/metrics"

  static func response(_ store: Store) -> SQSResponse {
    let storage = store.storage
    var text = ""
    func add(_ name: String, _ value: UInt64, _ help: String, isCounter: Bool = false) {
      text += "# HELP penstock_\(name) \(help)\n"
      text += "# TYPE penstock_\(name) \(isCounter ? "counter" : "gauge")\n"
      text += "penstock_\(name) \(value)\n"
    }
    func gauge(_ name: String, _ value: Int, _ help: String) {
      add(name, UInt64(clamping: value), help)
    }
    gauge("disk_bytes", storage.diskBytes, "Bytes of segments and checkpoints.")
    gauge("disk_bound_bytes", storage.diskBound, "What compaction keeps disk_bytes under.")
    gauge("live_bytes", storage.liveBytes, "Bytes of the records of messages not deleted.")
    gauge("segments", storage.segments, "Segment files with records.")
    gauge("prepared_segments", storage.preparedSegments, "Segment files made ahead of need.")
    gauge("memory_messages", storage.messagesInMemory, "Messages with an entry in memory.")
    add("checkpoint_lsn", storage.checkpointLSN ?? 0, "LSN that the newest checkpoint reaches.")
    add("last_lsn", storage.lastLSN, "LSN of the newest record.", isCounter: true)
    add("durable_lsn", storage.durableLSN, "LSN of the newest durable record.", isCounter: true)
    gauge(
      "damaged_segments", storage.damagedSegments,
      "Segments in which a check found damage since the start.")
    add("set_aside_messages", storage.setAside, "Damaged messages taken out of their queues.")
    return SQSResponse(
      status: 200, headers: [("Content-Type", "text/plain; version=0.0.4")], body: Array(text.utf8))
  }
}
