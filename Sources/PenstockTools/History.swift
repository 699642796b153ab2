// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// `penstock history`: every record that names one message, in order, as far as the log holds it;
/// with those that end all messages of its queue.
public struct History {
  public var context: ToolContext

  public init(_ context: ToolContext) { self.context = context }

  public struct Report: Sendable {
    /// The message's UUID, if its sent record was found.
    public var id: String?
    /// LSNs that name it: that of its sent record.
    public var lsns: [UInt64] = []
    public var records: [JSON] = []
    /// Damaged places in the files: what stood there may be missing here.
    public var damages = 0
    var lines: [String] = []

    public var json: JSON {
      .object([
        ("id", .optional(id)), ("lsns", .array(lsns.map { .unsigned($0) })),
        ("records", .array(records)), ("damages", .int(damages)),
      ])
    }

    public var text: String {
      var lines = lines
      if lines.isEmpty { lines.append("the log holds no record of this message") }
      if damages > 0 {
        lines.append("\(damages) places in the log are damaged; records may be missing here")
      }
      return lines.joined(separator: "\n")
    }
  }

  /// - Parameter message: a UUID, or the LSN of the sent record.
  public func run(_ message: String) throws(ToolError) -> Report {
    let visitor = HistoryVisitor()
    if let lsn = UInt64(message) {
      visitor.lsns = [lsn]
      visitor.names = lsn
    } else if message.utf8.count == 36 {
      visitor.id = message.lowercased()
    } else {
      throw ToolError(
        .refused, "\(message) is neither a message's UUID nor the LSN of its sent record")
    }
    var scan = try StoreScan(context, task: "reading")
    visitor.report.damages = try scan.run(visitor).reduce(0) { $0 + $1.damages.count }
    visitor.report.lsns = visitor.lsns.sorted()
    visitor.report.id = visitor.foundID
    return visitor.report
  }
}

private final class HistoryVisitor: SegmentVisitor {
  var report = History.Report()
  /// What is looked for.
  var id: String?
  var names: UInt64?
  /// LSNs of the message that are known.
  var lsns: Set<UInt64> = []
  var foundID: String?
  private var queue: QueueID?

  func record(_ place: RecordPlace, _ payload: RawSpan) {
    let entry: Entry
    do throws(RecordError) { entry = try Entry(payload) } catch { return }
    guard isAbout(entry, place) else { return }
    let members: [(String, JSON)] =
      [("lsn", .lsn(place.lsn?.value))] + RecordText.members(of: entry)
      + [("segment", .string(place.segment)), ("offset", .int(place.offset))]
    report.records.append(.object(members))
    report.lines.append(RecordText.line(members))
  }

  private func isAbout(_ entry: Entry, _ place: RecordPlace) -> Bool {
    switch entry.record {
    case .sent(let sent):
      let isNamed = place.lsn.map { $0.value == names } ?? false
      guard isNamed || sent.id.description == id else { return false }
      id = sent.id.description
      foundID = id
      queue = entry.queue
      if let lsn = place.lsn { lsns.insert(lsn.value) }
      return true
    case .leased(let message, _, _), .leaseChanged(let message, _, _), .deleted(let message, _),
      .setAside(let message, _, _), .excised(let message, _, _):
      return lsns.contains(message)
    case .moved(let moved):
      guard lsns.contains(moved.message) || moved.id.description == id else { return false }
      id = moved.id.description
      foundID = id
      queue = entry.queue
      lsns.insert(moved.message)
      return true
    case .attempted(_, let messages): return messages.contains { lsns.contains($0.message) }
    case .drawn(_, let messages): return messages.contains { lsns.contains($0.message) }
    case .transferred(let moved):
      guard lsns.contains(moved.message) else { return false }
      queue = moved.target
      if let lsn = place.lsn { lsns.insert(lsn.value) }
      return true
    case .purged, .queueDeleted: return queue == entry.queue
    case .expired(let through):
      return queue == entry.queue && lsns.contains { $0 <= through }
    case .logCreated, .queueCreated, .queueChanged, .cleared, .task: return false
    }
  }
}
