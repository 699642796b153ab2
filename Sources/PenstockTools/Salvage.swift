// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// `penstock salvage`: every message that the files still hold, whatever state they are in.
///
/// Believes each record that is whole by its own checksum and nothing else: no continuity, no
/// `HEAD`, and of checkpoints the names of queues alone. Whether a message was deleted is told as
/// far as the log holds a record that says so. Never writes into the store's directory.
public struct Salvage {
  public var context: ToolContext

  public init(_ context: ToolContext) { self.context = context }

  public struct Report: Sendable {
    /// Messages that were found, those included that a later record ends.
    public var messages = 0
    /// Those that no record ends, as far as the log tells.
    public var live = 0
    /// Those that stand in no whole frame and may never have been acknowledged.
    public var loose = 0
    /// Older records of messages that compaction copied; the newest copy counts.
    public var superseded = 0
    public var queues: [Queue] = []
    /// Damaged places in the files.
    public var damages: [JSON] = []
    var damageLines: [String] = []

    public struct Queue: Sendable {
      public var number: UInt32
      /// Nil when the record that names it is lost.
      public var name: String?
      public var messages = 0
      public var live = 0
    }

    public var json: JSON {
      .object([
        ("messages", .int(messages)), ("live", .int(live)), ("loose", .int(loose)),
        ("superseded", .int(superseded)),
        (
          "queues",
          .array(
            queues.map { queue in
              .object([
                ("queue", .optional(queue.name)), ("number", .unsigned(UInt64(queue.number))),
                ("messages", .int(queue.messages)), ("live", .int(queue.live)),
              ])
            })
        ), ("damages", .array(damages)),
      ])
    }

    public var text: String {
      var lines = queues.map { queue in
        "queue \(queue.name ?? "(name lost)")  number \(queue.number)  \(queue.live) live  "
          + "\(queue.messages) found"
      }
      lines += damageLines
      lines.append(
        "\(messages) messages found: \(live) live, \(messages - live) that a later record ends; "
          + "\(loose) of all stand in damaged frames and may never have been acknowledged")
      return lines.joined(separator: "\n")
    }
  }

  /// Writes each message to `export` as a line of JSON, in the order of the files.
  ///
  /// - Complexity: two passes over the segments; in memory are some bits for each message.
  public func run(export: LineFile? = nil) throws(ToolError) -> Report {
    let ends = Ends()
    var scan = try StoreScan(context, task: "reading deletes")
    scan.salvages = true
    let summaries = try scan.run(ends)
    try ends.nameQueues(context, scan.listing)
    let collector = Collector(ends, export)
    scan.task = "reading messages"
    _ = try scan.run(collector)
    var report = collector.report
    for damage in summaries.flatMap(\.damages) {
      report.damages.append(damage.json)
      report.damageLines.append(
        "DAMAGE  \(damage.file), offset \(damage.offset) to \(damage.end): \(damage.reason) "
          + "(\(damage.lsnText))")
    }
    report.queues = collector.queues.values.sorted { $0.number < $1.number }
    return report
  }
}

/// First pass: what ends messages, and what queues are called.
private final class Ends: SegmentVisitor {
  var names: [QueueID: String] = [:]
  private var deleted = LSNSet()
  /// By queue, the last LSN of a record that ends every message before it.
  private var purged: [QueueID: UInt64] = [:]
  private var removed: [QueueID: UInt64] = [:]
  private var expired: [QueueID: UInt64] = [:]
  private var damaged = LSNSet()
  /// Messages with a record, or a copy, in a frame that is whole.
  private var whole = LSNSet()
  /// What messages that went to another queue are there: LSN and queue.
  private var transferred: [UInt64: (lsn: UInt64, queue: QueueID)] = [:]
  /// Messages with such a copy.
  private var copied = LSNSet()
  /// Of messages that were copied more than once, the LSN of the newest copy.
  private var newest: [UInt64: UInt64] = [:]

  func record(_ place: RecordPlace, _ payload: RawSpan) {
    let entry: Entry
    do throws(RecordError) { entry = try Entry(payload) } catch { return }
    switch entry.record {
    case .queueCreated(let name, _): names[entry.queue] = name
    case .deleted(let message, _), .excised(let message, _, _): deleted.insert(message)
    case .transferred(let moved):
      if let lsn = place.lsn { transferred[moved.message] = (lsn.value, moved.target) }
    case .purged: purged[entry.queue] = place.lsn?.value ?? purged[entry.queue]
    case .queueDeleted: removed[entry.queue] = place.lsn?.value ?? .max
    case .expired(let through):
      expired[entry.queue] = max(through, expired[entry.queue] ?? 0)
    case .sent:
      if let lsn = place.lsn, !place.isLoose { whole.insert(lsn.value) }
    case .moved(let moved):
      guard !place.isLoose, let lsn = place.lsn else { return }
      whole.insert(moved.message)
      if !copied.insert(moved.message) { newest[moved.message] = lsn.value }
    case .setAside(let message, _, _): damaged.insert(message)
    case .logCreated, .queueChanged, .leased, .leaseChanged, .drawn, .cleared, .task,
      .attempted:
      break
    }
  }

  /// The record that names a queue may be gone with its segment; a checkpoint knows the name, too.
  /// Nothing else is taken from it.
  func nameQueues(_ context: ToolContext, _ listing: StoreListing) throws(ToolError) {
    for name in listing.checkpoints {
      guard let state = try FoundCheckpoint.read(name, context, store: nil)?.state else { continue }
      for queue in state.queueNames(prefix: "", after: nil, limit: .max) {
        if let id = state.queue(named: queue), names[id] == nil { names[id] = queue }
      }
    }
  }

  /// What a message is now, and where.
  func present(_ lsn: UInt64, _ queue: QueueID) -> (lsn: UInt64, queue: QueueID) {
    var (lsn, queue) = (lsn, queue)
    // Each has a greater LSN, or the records are none of this code's.
    while let next = transferred[lsn], next.lsn > lsn { (lsn, queue) = next }
    return (lsn, queue)
  }

  /// What ends the message, in a word; nil when nothing that is left does.
  ///
  /// - Parameters:
  ///   - lsn: of the send, which is the message's identity.
  ///   - place: of the record at hand: the send's, or a copy's.
  ///   - queue: where the message was by that record.
  func end(of own: UInt64?, _ place: RecordPlace, isCopy: Bool, _ queue: QueueID) -> String? {
    guard let own else { return nil }
    let (lsn, queue) = present(own, queue)
    // What it was called after it went to other queues.
    var (later, name) = ([UInt64](), own)
    while let next = transferred[name], next.lsn > name {
      name = next.lsn
      later.append(name)
    }
    if place.isLoose {
      if whole.contains(own) || later.contains(where: whole.contains) { return "moved" }
    } else if later.contains(where: copied.contains)
      || (isCopy ? place.lsn?.value ?? 0 < newest[own] ?? 0 : copied.contains(own))
    {
      return "moved"
    }
    if damaged.contains(lsn) { return "setAside" }
    if deleted.contains(lsn) { return "deleted" }
    if let at = purged[queue], lsn < at { return "purged" }
    if let at = removed[queue], lsn < at { return "queueDeleted" }
    // Messages that were in flight then are live all the same, and cannot be told from others.
    if let through = expired[queue], lsn <= through { return "expired" }
    return nil
  }
}

/// Second pass: the messages.
private final class Collector: SegmentVisitor {
  var report = Salvage.Report()
  var queues: [QueueID: Salvage.Report.Queue] = [:]
  private let ends: Ends
  private let export: LineFile?

  init(_ ends: Ends, _ export: LineFile?) {
    self.ends = ends
    self.export = export
  }

  func record(_ place: RecordPlace, _ payload: RawSpan) throws(ToolError) {
    var message: StoredMessage
    var isCopy = false
    var visibleAt: Timestamp?
    var lsn = place.lsn?.value
    do throws(RecordError) {
      switch try Entry(payload).record {
      case .sent(let sent): visibleAt = sent.visibleAt
      case .moved(let moved): (lsn, isCopy) = (moved.message, true)
      default: return
      }
      message = try StoredMessage(payload)
    } catch { return }
    let end = ends.end(of: lsn, place, isCopy: isCopy, message.queue)
    if let own = lsn { (lsn, message.queue) = ends.present(own, message.queue) }
    // The newest copy stands for the message; what is whole goes before what is not.
    if end == "moved" {
      report.superseded += 1
      return
    }
    let name = ends.names[message.queue]
    report.messages += 1
    if place.isLoose { report.loose += 1 }
    if end == nil { report.live += 1 }
    var queue = queues[message.queue] ?? .init(number: message.queue.value, name: name)
    queue.messages += 1
    if end == nil { queue.live += 1 }
    queues[message.queue] = queue
    try export?.write(line(message, lsn, visibleAt, place, name, end))
  }

  private func line(
    _ message: StoredMessage, _ lsn: UInt64?, _ visibleAt: Timestamp?, _ place: RecordPlace,
    _ queue: String?, _ end: String?
  ) -> String {
    let content = message.content
    var members: [(String, JSON)] = [
      ("lsn", .lsn(lsn)), ("recordLSN", .lsn(place.lsn?.value)),
      ("id", .string(message.id.description)),
      ("queue", .optional(queue)), ("queueNumber", .unsigned(UInt64(message.queue.value))),
      ("sentAt", .integer(message.sentAt.milliseconds)),
    ]
    if let visibleAt { members.append(("visibleAt", .integer(visibleAt.milliseconds))) }
    members.append(("ended", .optional(end)))
    members.append(("loose", .bool(place.isLoose)))
    members.append(("segment", .string(place.segment)))
    members.append(("offset", .int(place.offset)))
    if let key = content.sealedWith {
      members += [
        ("sealedWith", .string(key)), ("sealedBase64", .string(JSON.base64(content.body))),
      ]
    } else {
      members.append(JSON.bytes("body", content.body))
    }
    for (name, text) in [
      ("group", content.groupID), ("deduplicationID", content.deduplicationID),
      ("traceHeader", content.traceHeader),
      ("sender", content.senderID),
    ] where text != nil { members.append((name, .optional(text))) }
    if !content.attributes.isEmpty {
      let attributes = content.attributes.map { attribute in
        var members: [(String, JSON)] = [
          ("name", .string(attribute.name)), ("type", .string(attribute.type)),
        ]
        switch attribute.value {
        case .string(let text): members.append(("value", .string(text)))
        case .binary(let bytes): members.append(("valueBase64", .string(JSON.base64(bytes))))
        }
        return JSON.object(members)
      }
      members.append(("attributes", .array(attributes)))
    }
    return JSON.object(members).line
  }
}
