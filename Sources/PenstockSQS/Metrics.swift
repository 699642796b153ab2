// SPDX-License-Identifier: Apache-2.0
import Penstock

/// What the store takes, does and holds, in the Prometheus text format: the answer to
/// `GET /penstock/metrics`, which is no queue's URL.
struct Metrics {
  static let path = "/penstock/metrics"
  /// Queues that are listed, by name; those behind them are in `penstock_queues` alone.
  static let maximumQueues = 1000

  private var text = ""

  static func response(_ store: Store) -> SQSResponse {
    var metrics = Metrics()
    metrics.addStorage(store.storage)
    metrics.addStore(store.metrics())
    metrics.addRecovery(store.recovery)
    metrics.addQueues(store)
    return SQSResponse(
      status: 200, headers: [("Content-Type", "text/plain; version=0.0.4")],
      body: Array(metrics.text.utf8))
  }

  private mutating func head(_ name: String, _ type: String, _ help: String) {
    text += "# HELP penstock_\(name) \(help)\n# TYPE penstock_\(name) \(type)\n"
  }

  private mutating func counter(_ name: String, _ value: UInt64, _ help: String) {
    head(name, "counter", help)
    text += "penstock_\(name) \(value)\n"
  }

  private mutating func gauge(_ name: String, _ value: some BinaryInteger, _ help: String) {
    head(name, "gauge", help)
    text += "penstock_\(name) \(UInt64(clamping: value))\n"
  }

  /// A histogram of nanoseconds or of plain numbers, by its quantiles.
  private mutating func summary(
    _ name: String, _ histogram: Histogram, _ help: String, isNanoseconds: Bool
  ) {
    func number(_ value: UInt64) -> String { isNanoseconds ? "\(Double(value) / 1e9)" : "\(value)" }
    head(name, "summary", help)
    for part in [0.5, 0.9, 0.99, 0.999, 1] {
      text += "penstock_\(name){quantile=\"\(part)\"} \(number(histogram.quantile(part)))\n"
    }
    text += "penstock_\(name)_sum \(number(histogram.sum))\n"
    text += "penstock_\(name)_count \(histogram.count)\n"
  }

  private mutating func addStorage(_ storage: StorageDescription) {
    gauge("disk_bytes", storage.diskBytes, "Bytes of segments and checkpoints.")
    gauge("disk_bound_bytes", storage.diskBound, "What compaction keeps disk_bytes under.")
    gauge("live_bytes", storage.liveBytes, "Bytes of the records of messages not deleted.")
    gauge("segments", storage.segments, "Segment files with records.")
    gauge("prepared_segments", storage.preparedSegments, "Segment files made ahead of need.")
    gauge("memory_messages", storage.messagesInMemory, "Messages with an entry in memory.")
    gauge("checkpoints", storage.checkpoints, "Checkpoints on disk.")
    gauge("checkpoint_lsn", storage.checkpointLSN ?? 0, "LSN that the newest checkpoint reaches.")
    counter("last_lsn", storage.lastLSN, "LSN of the newest record.")
    counter("durable_lsn", storage.durableLSN, "LSN of the newest durable record.")
    gauge(
      "damaged_segments", storage.damagedSegments,
      "Segments in which a check found damage since the start.")
    gauge("set_aside_messages", storage.setAside, "Damaged messages taken out of their queues.")
  }

  private mutating func addStore(_ store: StoreMetrics) {
    counter("log_bytes", store.bytes, "Bytes written to the log since the start.")
    counter("copied_bytes", store.copiedBytes, "Bytes that compaction copied since the start.")
    counter("removed_segments", store.removedSegments, "Segments removed since the start.")
    summary("commit_records", store.records, "Records of a commit.", isNanoseconds: false)
    summary("sync_seconds", store.syncs, "How long syncs of the log took.", isNanoseconds: true)
    summary(
      "commit_wait_seconds", store.commitWaits, "How long operations waited for the log.",
      isNanoseconds: true)
    gauge("waiting_receives", store.waitingReceives, "Receives that wait for a message.")
    gauge("waiting_for_commit", store.waitingForCommit, "Operations that wait for their commit.")
    gauge("waiting_for_room", store.waitingForRoom, "Operations that wait for room in the log.")
  }

  private mutating func addRecovery(_ recovery: RecoveryReport) {
    gauge("recovery_segments", recovery.segments, "Segments there were at the start.")
    gauge("recovery_bytes", recovery.bytes, "Bytes of the log that the start read.")
    gauge("recovery_records", recovery.records, "Records that the start read.")
    head("recovery_seconds", "gauge", "How long the start took to read the log.")
    text += "penstock_recovery_seconds \(recovery.duration / .seconds(1))\n"
  }

  /// A metric of queues: its name, its help, and how it is read.
  private struct OfQueues {
    var name: String
    var help: String
    var isCounter: Bool
    /// Nil when it does not depend on groups, or none are there.
    var groups: @Sendable (GroupMetrics?) -> Int?
    var value: @Sendable (QueueMetrics) -> Int
    init(
      _ name: String, _ help: String, isCounter: Bool = true,
      groups: @escaping @Sendable (GroupMetrics?) -> Int? = { _ in nil },
      _ value: @escaping @Sendable (QueueMetrics) -> Int
    ) {
      (self.name, self.help, self.isCounter) = (name, help, isCounter)
      (self.groups, self.value) = (groups, value)
    }
  }

  /// Named after the metrics of the service in its cloud, as far as that has them.
  private static let ofQueues = [
    OfQueues("number_of_messages_sent", "Messages sent.") { $0.traffic.sent },
    OfQueues("sent_message_size", "Bytes of bodies and attributes sent.") { $0.traffic.sentBytes },
    OfQueues("number_of_deduplicated_sent_messages", "Sends that repeated another.") {
      $0.traffic.duplicates
    },
    OfQueues("number_of_messages_received", "Deliveries.") { $0.traffic.received },
    OfQueues("number_of_empty_receives", "Receives without a message.") {
      $0.traffic.emptyReceives
    },
    OfQueues("number_of_messages_deleted", "Messages deleted.") { $0.traffic.deleted },
    OfQueues("number_of_messages_expired", "Messages whose retention ended.") {
      $0.traffic.expired
    },
    OfQueues("number_of_messages_purged", "Messages purged.") { $0.traffic.purged },
    OfQueues("number_of_messages_dead_lettered", "Messages moved to the dead letters.") {
      $0.traffic.deadLettered
    },
    OfQueues("approximate_number_of_messages_visible", "Messages to receive.", isCounter: false) {
      $0.counts.visible
    },
    OfQueues("approximate_number_of_messages_not_visible", "Messages in flight.", isCounter: false)
    { $0.counts.leased },
    OfQueues("approximate_number_of_messages_delayed", "Messages delayed.", isCounter: false) {
      $0.counts.delayed
    },
    OfQueues(
      "approximate_age_of_oldest_message", "Seconds since the oldest message came.",
      isCounter: false
    ) { Int(clamping: $0.oldestAge?.components.seconds ?? 0) },
    OfQueues(
      "approximate_number_of_groups_with_inflight_messages", "Groups with messages in flight.",
      isCounter: false, groups: { $0?.inFlight }
    ) { _ in 0 },
    OfQueues(
      "approximate_number_of_noisy_groups", "Groups that wait for others.", isCounter: false,
      groups: { $0?.noisy }
    ) { _ in 0 },
    OfQueues(
      "approximate_number_of_messages_visible_in_quiet_groups",
      "Messages to receive, without those of noisy groups.", isCounter: false,
      groups: { $0?.quiet.visible }
    ) { $0.counts.visible },
    OfQueues(
      "approximate_number_of_messages_not_visible_in_quiet_groups",
      "Messages in flight, without those of noisy groups.", isCounter: false,
      groups: { $0?.quiet.leased }
    ) { $0.counts.leased },
    OfQueues(
      "approximate_number_of_messages_delayed_in_quiet_groups",
      "Messages delayed, without those of noisy groups.", isCounter: false,
      groups: { $0?.quiet.delayed }
    ) { $0.counts.delayed },
    OfQueues(
      "approximate_age_of_oldest_message_in_quiet_groups",
      "Seconds since the oldest of them that can be received came.", isCounter: false,
      groups: { $0.map { Int(clamping: $0.quietOldestAge?.components.seconds ?? 0) } }
    ) { Int(clamping: $0.oldestAge?.components.seconds ?? 0) },
  ]

  private mutating func addQueues(_ store: Store) {
    let names = store.queueNames()
    gauge("queues", names.count, "Queues there are; the first 1000 by name are listed here.")
    let queues = names.prefix(Self.maximumQueues).compactMap {
      name -> (String, QueueMetrics, GroupMetrics?)? in
      guard let id = store.lookup(name)?.id, let metrics = store.metrics(of: id) else { return nil }
      return (Self.label(name), metrics, store.groupMetrics(of: id))
    }
    for metric in Self.ofQueues {
      head(metric.name, metric.isCounter ? "counter" : "gauge", metric.help)
      for (label, queue, groups) in queues {
        let value = metric.groups(groups) ?? metric.value(queue)
        text += "penstock_\(metric.name){queue=\"\(label)\"} \(value)\n"
      }
    }
  }

  /// A text as the value of a label: of all characters these alone mean something there.
  static func label(_ text: String) -> String {
    var label = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": label += "\\\\"
      case "\"": label += "\\\""
      case "\n": label += "\\n"
      default: label.unicodeScalars.append(scalar)
      }
    }
    return label
  }
}
