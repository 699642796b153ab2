// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog

/// What opening a store found and did: for the host to inspect and for people to read.
public struct RecoveryReport: Sendable, CustomStringConvertible {
  /// How the log ended.
  public enum End: String, Sendable, Hashable {
    /// The store was made by this open.
    case created
    /// The last run closed the store.
    case closed
    /// The last run did not close the store, and nothing lies behind its last commit.
    case clean
    /// Behind the last commit lay bytes of a write that was never acknowledged as synced.
    case torn
    /// The same, with whole commits among them that reached the disk out of order.
    case unsyncedWindow
  }

  /// How the log ended.
  public var end: End
  /// LSN of the checkpoint that the log was read from; nil when it was read from its beginning.
  public var checkpointLSN: UInt64?
  /// Queues that are there.
  public var queues: Int
  /// Messages that are there, in whatever state.
  public var messages: Int
  /// Segment files that are there.
  public var segments: Int
  /// Records behind the checkpoint, and bytes of their segments: what was read.
  public var records: UInt64
  /// Bytes of the segments that were read.
  public var bytes: UInt64
  /// LSN of the last record.
  public var lastLSN: UInt64
  /// Bytes that were cut off behind the last commit, none of them acknowledged as synced.
  public var droppedBytes: Int
  /// The file in the store's directory that keeps them; nil if there were none or no space for it.
  public var evidence: String?
  /// Checkpoints that were damaged and set aside, by their new names. What they held was taken from
  /// an older one, or from the log's beginning.
  public var damagedCheckpoints: [String]
  /// Names in the directory that are not the store's.
  public var unknownFiles: [String]
  /// How long opening took.
  public var duration: Duration
  /// The machine's clock less the time of the newest record: how long the store rested, if both are
  /// right. Below zero the clock was set back, and time goes on from the record.
  public var clockJump: Duration

  init(_ log: LogRecovery, queues: Int, messages: Int, nanoseconds: UInt64, clockJump: Duration) {
    self.clockJump = clockJump
    end =
      switch log.end {
      case .created: .created
      case .sealed: .closed
      case .clean: .clean
      case .torn: .torn
      case .unsyncedWindow: .unsyncedWindow
      }
    checkpointLSN = log.checkpoint?.value
    self.queues = queues
    self.messages = messages
    segments = log.segments
    records = log.records
    bytes = log.replayedBytes
    lastLSN = log.lastLSN.value
    droppedBytes = log.droppedBytes
    evidence = log.evidence
    damagedCheckpoints = log.damagedCheckpoints
    unknownFiles = log.unknownFiles
    duration = .nanoseconds(Int64(clamping: nanoseconds))
  }

  public var description: String {
    let milliseconds = duration.wholeMilliseconds
    var lines: [String] = []
    switch end {
    case .created: lines.append("new store")
    case .closed: lines.append("the last run closed the store")
    case .clean: lines.append("the last run did not close the store; its log ends cleanly")
    case .torn:
      lines.append("the last run did not close the store; cut an unacknowledged write")
    case .unsyncedWindow:
      lines.append("the last run did not close the store; cut unacknowledged commits")
    }
    lines.append(
      "\(messages) messages in \(queues) queues and \(segments) segments; read "
        + (checkpointLSN.map { "the checkpoint at LSN \($0) and " } ?? "")
        + "\(records) records (\(bytes) bytes) in \(milliseconds) ms")
    if droppedBytes > 0 {
      lines.append("\(droppedBytes) bytes cut; kept in \(evidence ?? "no file: the disk is full")")
    }
    if !damagedCheckpoints.isEmpty {
      lines.append(
        "damaged checkpoints, set aside and not needed: "
          + damagedCheckpoints.joined(separator: ", "))
    }
    if clockJump <= .seconds(-1) {
      lines.append(
        "the machine's clock is \(-clockJump.components.seconds) seconds behind the newest record; "
          + "time goes on from that")
    }
    if !unknownFiles.isEmpty {
      lines.append("not the store's: \(unknownFiles.joined(separator: ", "))")
    }
    return lines.joined(separator: "\n")
  }
}
