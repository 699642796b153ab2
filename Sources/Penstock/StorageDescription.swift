// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// What a store takes on disk and in memory at one moment: for metrics.
public struct StorageDescription: Hashable, Sendable {
  /// Segment files with records, and those that are prepared for the next ones.
  public var segments: Int
  /// Segment files that lie ready for later records.
  public var preparedSegments: Int
  /// Bytes of segments and checkpoints.
  public var diskBytes: Int
  /// Bytes of the records of all messages that are not deleted.
  public var liveBytes: Int
  /// What compaction keeps `diskBytes` under: twice what lives, and four segments.
  public var diskBound: Int
  /// Messages with an entry in memory; all others wait in the log alone.
  public var messagesInMemory: Int
  /// Checkpoints on disk, two at most; the LSN that the newest one reaches, if there is one.
  public var checkpoints: Int
  /// LSN that the newest checkpoint reaches; nil when there is none.
  public var checkpointLSN: UInt64?
  /// LSN of the newest record, and of the newest that is durable.
  public var lastLSN: UInt64
  /// LSN of the newest durable record.
  public var durableLSN: UInt64
  /// Messages of all queues that are there now whose bytes were damaged.
  public var setAside: UInt64
  /// Segments in which damage was found since the store was opened.
  public var damagedSegments: Int
}

/// What `Store.verify` found.
public struct VerifyReport: Sendable {
  /// What was read.
  public var segments = 0
  /// Checkpoints that were read.
  public var checkpoints = 0
  /// Bytes that were read.
  public var bytes: UInt64 = 0
  /// One line for each damaged file: its name, the place and what is wrong there.
  public var damage: [String] = []
  /// How long it took.
  public var duration = Duration.zero
}

extension Store {
  /// What the store takes on disk and in memory. Costs little; a queue more or less.
  public var storage: StorageDescription {
    let (log, options) = (engine.log, engine.options)
    let prepared = log.preparedCount
    let checkpoints = log.checkpoints
    let segments = log.segments.count
    let bytes = Int(clamping: log.bytes) + prepared * options.segmentSize
    return engine.shared.withLock { shared in
      StorageDescription(
        segments: segments, preparedSegments: prepared, diskBytes: bytes,
        liveBytes: shared.state.liveBytes,
        diskBound: 2 * shared.state.liveBytes + 4 * options.segmentSize,
        messagesInMemory: shared.state.messageCount, checkpoints: checkpoints.count,
        checkpointLSN: checkpoints.last?.lsn.value, lastLSN: shared.tail.nextLSN.value - 1,
        durableLSN: shared.tail.durableLSN.value, setAside: shared.state.setAsideCount,
        damagedSegments: shared.damagedSegments.count)
    }
  }

  /// Reads every sealed segment and checkpoint and compares all checksums, as fast as the disk
  /// gives them. The store goes on meanwhile. Changes nothing: a damaged message is set aside when
  /// it is received.
  ///
  /// Not read is the newest segment, whose end is being written.
  ///
  /// - Throws: `.closed` when the store is closed meanwhile; `.inputOutput` when a directory or a
  ///   checkpoint cannot be opened. Damage is no error: it is in the report.
  public func verify() async throws(PenstockError) -> VerifyReport {
    try await onThread(named: "penstock-verify") { () throws(PenstockError) in
      try self.engine.verify()
    }
  }
}

/// Runs what takes long on a thread of its own, not on one of the cooperative pool.
func onThread<T: Sendable>(
  named name: String, _ body: @escaping @Sendable () throws(PenstockError) -> T
) async throws(PenstockError) -> T {
  let result = await withCheckedContinuation { continuation in
    do throws(SystemError) {
      _ = try SystemThread(name: name) {
        do throws(PenstockError) {
          continuation.resume(returning: Result<T, PenstockError>.success(try body()))
        } catch {
          continuation.resume(returning: .failure(error))
        }
      }
    } catch {
      continuation.resume(returning: .failure(PenstockError(.inputOutput, error.description)))
    }
  }
  return try result.get()
}
