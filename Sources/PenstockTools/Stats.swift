// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// `penstock stats`: queues and their messages by state, and what of each segment is still needed.
public struct Stats {
  public var context: ToolContext

  public init(_ context: ToolContext) { self.context = context }

  public struct Queue: Sendable {
    public var name: String
    public var number: UInt32
    public var visible: Int
    public var leased: Int
    public var delayed: Int
    /// When the oldest message was sent, in milliseconds since 1970, to the second above.
    public var oldestSentAt: Int64?
  }

  public struct Segment: Sendable {
    public var name: String
    public var ordinal: UInt32?
    public var bytes: Int
    /// Messages whose bytes are here and still needed.
    public var messages: Int
    public var liveBytes: Int
    /// Room behind the end of the log, in the newest segment.
    public var freeBytes: Int
    /// The rest: of messages that are gone, other records, headers and padding.
    public var deadBytes: Int { max(0, bytes - liveBytes - freeBytes) }
  }

  public struct Report: Sendable {
    public var queues: [Queue] = []
    public var segments: [Segment] = []
    public var lsn: UInt64 = 0
    /// Of the checkpoint that the look began with.
    public var checkpoint: UInt64?
    public var stateHash = ""
    /// Milliseconds since 1970, by this machine's clock.
    public var now: Int64 = 0

    public var json: JSON {
      .object([
        ("lsn", .unsigned(lsn)), ("checkpoint", .lsn(checkpoint)),
        ("stateHash", .string(stateHash)),
        (
          "queues",
          .array(
            queues.map { queue in
              .object([
                ("queue", .string(queue.name)), ("number", .unsigned(UInt64(queue.number))),
                ("visible", .int(queue.visible)), ("leased", .int(queue.leased)),
                ("delayed", .int(queue.delayed)),
                ("oldestSentAt", queue.oldestSentAt.map { .integer($0) } ?? .null),
                (
                  "oldestAgeSeconds",
                  queue.oldestSentAt.map { .integer(max(0, now - $0) / 1000) } ?? .null
                ),
              ])
            })
        ),
        (
          "segments",
          .array(
            segments.map { segment in
              .object([
                ("segment", .string(segment.name)),
                ("ordinal", segment.ordinal.map { .unsigned(UInt64($0)) } ?? .null),
                ("bytes", .int(segment.bytes)), ("messages", .int(segment.messages)),
                ("liveBytes", .int(segment.liveBytes)), ("deadBytes", .int(segment.deadBytes)),
                ("freeBytes", .int(segment.freeBytes)),
              ])
            })
        ),
      ])
    }

    public var text: String {
      var lines = queues.map { queue in
        let age = queue.oldestSentAt.map { ", oldest \(max(0, now - $0) / 1000) s" } ?? ""
        return "queue \(queue.name): \(queue.visible) visible, \(queue.leased) leased, "
          + "\(queue.delayed) delayed\(age)"
      }
      lines += segments.map { segment in
        "\(segment.name): \(segment.bytes) bytes, \(segment.liveBytes) live in "
          + "\(segment.messages) messages, \(segment.deadBytes) dead, \(segment.freeBytes) free"
      }
      let start = checkpoint.map { "from the checkpoint at LSN \($0)" } ?? "from the first record"
      lines.append("LSN \(lsn), read \(start); state hash \(stateHash)")
      return lines.joined(separator: "\n")
    }
  }

  /// - Throws: `damaged` when the log cannot be replayed; `verify` then says where.
  public func run() throws(ToolError) -> Report {
    var result = try Attempts.run { () throws(ToolError) in
      try Replay.run(context, to: .newest, task: "replaying")
    }
    var report = Report()
    report.lsn = result.lsn.value
    report.checkpoint = result.checkpoint?.value
    report.stateHash = result.stateHash
    report.now = context.clock.wallMilliseconds()
    // What a running store shows now: leases and delays that ended since the last record are over.
    result.state.advance(to: Timestamp(milliseconds: report.now))
    for name in result.state.queueNames(prefix: "", after: nil, limit: .max) {
      guard let id = result.state.queue(named: name), let queue = result.state.describe(id) else {
        continue
      }
      report.queues.append(
        Queue(
          name: name, number: id.value, visible: queue.counts.visible, leased: queue.counts.leased,
          delayed: queue.counts.delayed,
          oldestSentAt: result.state.oldestSecond(of: id).map { Int64($0) * 1000 }))
    }
    for segment in try StoreListing(context).segments {
      try add(segment.name, result, to: &report)
    }
    return report
  }

  private func add(
    _ name: String, _ result: Replay.Result, to report: inout Report
  ) throws(ToolError) {
    let window = try unlessMissing { () throws(SystemError) in
      try FileWindow(context.fileSystem.open(context.path(name), .readOnly))
    }
    guard let window else { return }
    let ordinal: UInt32? = window.look(0, LogFormat.segmentHeaderSize) { raw in
      do throws(SegmentHeader.Failure) { return try SegmentHeader(raw).ordinal } catch {
        return nil
      }
    }
    let live = ordinal.flatMap { result.state.residents[$0] }
    let cut = result.cut
    let isOpen = name == cut.segment && !cut.isSealed
    report.segments.append(
      Segment(
        name: name, ordinal: ordinal, bytes: window.size, messages: live?.count ?? 0,
        liveBytes: live?.bytes ?? 0, freeBytes: isOpen ? max(0, window.size - cut.offset) : 0))
    try window.close()
  }
}

/// Runs what a busy store may take the files away from, again.
enum Attempts {
  static let limit = 20

  static func run<Result>(
    _ body: () throws(ToolError) -> Result
  ) throws(ToolError) -> Result {
    for _ in 1..<limit {
      do throws(ToolError) { return try body() } catch {
        guard error.kind == .vanished else { throw error }
      }
    }
    return try body()
  }
}
