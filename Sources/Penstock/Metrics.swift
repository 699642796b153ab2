// SPDX-License-Identifier: Apache-2.0
public import PenstockCore
internal import PenstockSystem
internal import Synchronization

/// How often a number was how large: counts in buckets whose width is an eighth of what they hold,
/// so that what it tells is at most that much too high.
public struct Histogram: Hashable, Sendable {
  /// Numbers that were recorded.
  public private(set) var count: UInt64 = 0
  /// Their sum.
  public private(set) var sum: UInt64 = 0
  /// The largest, exactly.
  public private(set) var maximum: UInt64 = 0
  /// Eight for each power of two from 8 up to 2^41, and one for each number below; the last has
  /// what is larger.
  private var buckets = [UInt64](repeating: 0, count: 312)

  /// Nothing recorded yet.
  public init() {}

  /// Counts a number.
  ///
  /// - Complexity: O(1), without allocating.
  public mutating func record(_ value: UInt64) {
    let power = max(3, 63 - value.leadingZeroBitCount)
    let index = value < 8 ? Int(value) : (power - 2) * 8 + Int(value >> (power - 3) & 7)
    buckets[min(index, buckets.count - 1)] += 1
    count += 1
    sum &+= value
    maximum = max(maximum, value)
  }

  /// A number that a part of those recorded is not above; 0 when there are none.
  ///
  /// - Parameter part: 0.5 for the median, 0.99 for the 99th percentile.
  public func quantile(_ part: Double) -> UInt64 {
    let rank = UInt64(max(1, (Double(count) * min(max(part, 0), 1)).rounded(.up)))
    var seen: UInt64 = 0
    for (index, inBucket) in buckets.enumerated() {
      seen += inBucket
      guard seen >= rank else { continue }
      // The last bucket has no end.
      if index == buckets.count - 1 { break }
      let shift = max(0, index / 8 - 1)
      let first = index < 8 ? UInt64(index) : UInt64(8 + index % 8) << UInt64(shift)
      return min(maximum, first + (1 << UInt64(shift)) - 1)
    }
    return maximum
  }

  /// The same numbers in memory of its own, so that the next record need not copy.
  var copy: Histogram {
    var copy = self
    copy.buckets = buckets.map { $0 }
    return copy
  }
}

/// How a store does: what it wrote since it was opened, and who waits now.
public struct StoreMetrics: Sendable {
  /// Commits: frames with records that were written to the log.
  public var commits: UInt64 { records.count }
  /// Records of a commit. A send, a lease and a delete of one message are a record each.
  public var records = Histogram()
  /// Bytes that were written to the log, padding included; not those of checkpoints.
  public var bytes: UInt64 = 0
  /// Bytes of messages that compaction copied, so that segments could be removed.
  public var copiedBytes: UInt64 = 0
  /// Segments that were removed because nothing lived in them.
  public var removedSegments: UInt64 = 0
  /// Syncs of the log, and how long each took in nanoseconds. One makes all commits before durable.
  public var syncs = Histogram()
  /// How long operations took from their call to their answer, in nanoseconds, if they had to wait
  /// for the log.
  public var commitWaits = Histogram()
  /// Receives that wait for a message.
  public var waitingReceives = 0
  /// Operations that wait for their commit.
  public var waitingForCommit = 0
  /// Operations that wait for room in the log.
  public var waitingForRoom = 0
  /// What opening found.
  public var recovery: RecoveryReport

  var copy: StoreMetrics {
    var copy = self
    copy.records = records.copy
    copy.syncs = syncs.copy
    copy.commitWaits = commitWaits.copy
    return copy
  }
}

/// What happens rarely in a store, and an operator may want to log. Later versions have more: give
/// a `switch` a default.
public enum StoreEvent: Sendable {
  /// The store is being opened: so many segments behind the checkpoint were read, of so many.
  case recovering(segments: Int, of: Int)
  /// The store was opened; comes before `open` returns.
  case recovered(RecoveryReport)
  /// A segment file of the log has its first records.
  case segmentBegun(number: UInt32)
  /// Segment files in which nothing lived are gone.
  case segmentsRemoved(numbers: [UInt32])
  /// A checkpoint is durable: a start reads the log behind this LSN.
  case checkpointWritten(lsn: UInt64, bytes: UInt64)
  /// The bytes of a message are damaged. It leaves its queue, and nobody receives it.
  case setAside(message: UInt64, queue: QueueID)
  /// Messages went to a queue's dead letters.
  case deadLettered(from: QueueID, to: QueueID, count: Int)
  /// Sends are refused until there is space on the disk.
  case full
  /// Sends are taken again.
  case roomAgain
  /// A sync of the log took longer than `StoreOptions.slowSync`.
  case slowSync(Duration)
  /// Nothing more is written: the store has to be opened again.
  case failed(PenstockError)
}

extension Store {
  /// What the store wrote since it was opened, and who waits now. Costs little.
  public func metrics() -> StoreMetrics {
    engine.shared.withLock { shared in
      var metrics = shared.metrics.copy
      metrics.waitingReceives = shared.waiters.count
      metrics.waitingForCommit = shared.synced.count + shared.written.count
      metrics.waitingForRoom =
        shared.waitingForRoom.count + shared.drainsWaitingForRoom.count
        + shared.receivesWaitingForRoom.count
      return metrics
    }
  }

  /// What was done with a queue since the store was opened, and what is in it; nil when there is no
  /// such queue. Costs little, however long the queue is.
  public func metrics(of queue: QueueID) -> QueueMetrics? { engine.look { $0.metrics(queue) } }

  /// How the groups of a queue share it; nil when no message there names one.
  ///
  /// - Complexity: O(groups + messages in flight + messages of noisy groups); nobody waits for it.
  public func groupMetrics(of queue: QueueID) -> GroupMetrics? {
    let state = engine.look { $0.hasGroups(queue) ? $0 : nil }
    return state?.groupMetrics(queue)
  }
}

extension Queue {
  /// What was done with the queue since the store was opened, and what is in it.
  ///
  /// - Throws: `.queueNotFound`.
  public func metrics() throws(PenstockError) -> QueueMetrics {
    guard let metrics = store.metrics(of: id) else { throw .noQueue }
    return metrics
  }

  /// How the groups of the queue share it: see `Store.groupMetrics`.
  public func groupMetrics() -> GroupMetrics? { store.groupMetrics(of: id) }
}

extension Engine.Shared {
  /// Notes a message that goes to the dead letters; those of one section are one event.
  mutating func noteDeadLetter(_ source: QueueID, _ target: QueueID) {
    if case .deadLettered(source, target, let count)? = events.last {
      events[events.count - 1] = .deadLettered(from: source, to: target, count: count + 1)
    } else {
      events.append(.deadLettered(from: source, to: target, count: 1))
    }
  }
}
