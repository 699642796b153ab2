// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockCore
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// The byte tables of `Docs/format.md`, compared with what the codec writes: every field is given a
/// value of its own, and must be found at the offset and in the size that the document names.
@Suite struct FormatDocument {
  /// A row of a table. A size that is no number stands for the rest.
  struct Row {
    var offset: Int
    var size: Int?
    var field: String
  }

  static func document() throws -> [String] {
    let url = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../Docs/format.md")
    return try String(contentsOf: url, encoding: .utf8).components(separatedBy: "\n")
  }

  /// The first table under a heading.
  static func table(_ heading: String) throws -> [Row] {
    let lines = try document()
    let start = try #require(lines.firstIndex { $0.hasSuffix("# " + heading) }, "\(heading)")
    var rows: [Row] = []
    for line in lines[(start + 1)...] {
      if line.hasPrefix("#") { break }
      let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
      guard line.hasPrefix("|"), cells.count >= 3 else {
        if rows.isEmpty { continue }
        break
      }
      guard let offset = Int(cells[0]) else { continue }
      rows.append(Row(offset: offset, size: Int(cells[1]), field: cells[2]))
    }
    #expect(!rows.isEmpty, "no table under \(heading)")
    return rows
  }

  /// The rows cover `bytes` without a gap, and each field's value, which no other field has, stands
  /// where its row says. The field `zero` is zero.
  func check(
    _ heading: String, _ bytes: [UInt8], _ values: [String: [UInt8]], mayRepeat: Set<String> = []
  ) throws {
    var next = 0
    var unseen = Set(values.keys)
    let distinct = values.filter { !mayRepeat.contains($0.key) }.values
    #expect(Set(distinct).count == distinct.count, "\(heading): two fields have one value")
    for row in try Self.table(heading) {
      #expect(row.offset == next, "\(heading), \(row.field): gap or overlap")
      let size = row.size ?? bytes.count - row.offset
      next = row.offset + size
      guard next <= bytes.count else {
        Issue.record("\(heading), \(row.field): behind the end")
        continue
      }
      if row.field == "zero" {
        #expect(bytes[row.offset..<next].allSatisfy { $0 == 0 }, "\(heading) at \(row.offset)")
        continue
      }
      guard let value = values[row.field] else {
        Issue.record("\(heading): the codec has no field \(row.field)")
        continue
      }
      unseen.remove(row.field)
      #expect(value.count == size, "\(heading), \(row.field): size")
      #expect(bytes[row.offset..<next].array == value, "\(heading), \(row.field): place")
    }
    #expect(next == bytes.count, "\(heading): the table ends at \(next)")
    #expect(unseen.isEmpty, "\(heading): the document lacks \(unseen.sorted())")
  }

  func little(_ value: some FixedWidthInteger) -> [UInt8] {
    (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  // MARK: The log

  @Test func theStoreFile() throws {
    let bytes = encoded { sampleStore().write(into: $0) }
    try check(
      "STORE", bytes,
      [
        "magic": Array("PNSKSTOR".utf8), "version": little(UInt32(LogFormat.version)),
        "store high": little(0x0102_0304_0506_0708), "store low": little(0x1112_1314_1516_1718),
        "key high": little(0x2122_2324_2526_2728), "key low": little(0x3132_3334_3536_3738),
        "created at": little(0x4142_4344_4546_4748),
        "checksum": little(bytes.dropLast(4).array.withRaw { CRC32C.of($0) }),
      ])
  }

  @Test func theSegmentHeader() throws {
    let bytes = encoded { _ = sampleSegment().write(into: $0) }
    try check(
      "Segment header", bytes,
      [
        "magic": Array("PNSCKSEG".utf8), "version": little(UInt32(LogFormat.version)),
        "store high": little(0x0102_0304_0506_0708), "store low": little(0x1112_1314_1516_1718),
        "salt": little(0x2122_2324_2526_2728), "first LSN": little(0x3132_3334_3536_3738),
        "ordinal": little(UInt32(0x4142_4344)), "previous": little(UInt32(0x5152_5354)),
        "capacity": little(UInt32(0x6162_6364)),
        "checksum": little(bytes.dropLast(4).array.withRaw { CRC32C.of($0) }),
      ])
  }

  @Test func aSlotOfTheHeadFile() throws {
    let bytes = encoded { sampleHead().write(into: $0) }
    try check(
      "HEAD", bytes,
      [
        "magic": Array("PNSKHEAD".utf8), "version": little(UInt32(LogFormat.version)),
        "ordinal": little(UInt32(0x4142_4344)), "store high": little(0x0102_0304_0506_0708),
        "store low": little(0x1112_1314_1516_1718),
        "checksum": little(bytes.dropLast(4).array.withRaw { CRC32C.of($0) }),
      ])
  }

  @Test func theFrameHeader() throws {
    var header = sampleFrame(.heartbeat)
    (header.count, header.bodyLength) = (0x2122_2324, 0x3132_3334)
    (header.extent, header.offset) = (0x4142_4344, 0x5152_5354)
    let bytes = encoded(room: LogFormat.frameHeaderSize) { _ = header.write(into: $0) }
    try check(
      "Frame header", bytes,
      [
        "magic": Array("PFRM".utf8), "version": [LogFormat.version], "kind": [2],
        "salt": little(header.salt), "first LSN": little(header.firstLSN.value),
        "count": little(header.count), "body length": little(header.bodyLength),
        "extent": little(header.extent), "previous": little(header.previous),
        "durable LSN": little(header.durableLSN.value), "offset": little(header.offset),
        "body checksum": little(header.bodyChecksum),
        "header checksum": little(bytes.dropLast(4).array.withRaw { CRC32C.of($0) }),
      ])
  }

  @Test func theRecordHeader() throws {
    var tail = LogTail(lastLSN: LSN(1), nextSegment: 1, segmentSize: segmentSize)
    tail.prepared()
    let content = payload(1, size: 0x0123)
    _ = tail.makeRoom(LogFormat.recordSize(payload: content.count), for: .upkeep)
    _ = tail.append(payload: content.count, synced: false) { $0.put(content) }
    let batches = tail.takeBatches()
    let batch = try #require(batches.first)
    let whole = batch.buffer.withBytes { $0.array }
    let size = LogFormat.recordHeaderSize + content.count
    let bytes = Array(whole[64..<64 + size])
    try check(
      "Record header", bytes,
      [
        "checksum": little(bytes.dropFirst(4).array.withRaw { CRC32C.of($0) }),
        "payload length": little(UInt32(0x0123)), "payload": content,
      ])
  }

  /// One that ends a run, and one that a recovery wrote.
  @Test(arguments: [false, true]) func theBodyOfASeal(_ isRecovered: Bool) throws {
    let disk = SimulatedFileSystem()
    var session = try newLog(disk)
    for number in 1...5 { try session.append(payload(number)) }
    let frame = try session.commit(payload(6))
    if isRecovered {
      disk.kill()
      _ = try open(disk)
    } else {
      try session.log.seal()
    }
    let bytes = try #require(disk.contents(of: segment(2)))
    let body = frame.end + LogFormat.frameHeaderSize
    try check(
      "Body of a seal", Array(bytes[body..<body + 24]),
      [
        "records": little(UInt64(6)),
        "last LSN": little(isRecovered ? 7 + (1 << 28) : UInt64(7)),
        "file size": little(UInt64(bytes.count)),
      ])
  }

  // MARK: Records

  func entry(_ record: Record, _ content: MessageContent? = nil) -> [UInt8] {
    let entry = Entry(
      queue: QueueID(0x0102_0304), time: Timestamp(milliseconds: 0x1112_1314_1516_1718),
      record: record)
    let bytes = encoded { entry.encode(content, into: $0) }
    #expect(bytes.count == entry.payloadSize(content))
    return bytes
  }

  var settings: QueueSettings {
    QueueSettings(
      visibilityTimeout: .milliseconds(0x2122_2324_2526), delay: .milliseconds(0x3132_3334_3536),
      maximumMessageBytes: 0x4142_4344_4546, retention: .milliseconds(0x5152_5354_5556),
      receiveWait: .milliseconds(0x6162_6364_6566))
  }

  var settingValues: [String: [UInt8]] {
    [
      "visibility timeout": little(0x2122_2324_2526), "delay": little(0x3132_3334_3536),
      "maximum message bytes": little(0x4142_4344_4546), "retention": little(0x5152_5354_5556),
      "receive wait": little(0x6162_6364_6566),
    ]
  }

  @Test func thePrefixOfAPayload() throws {
    try check(
      "Prefix", entry(.purged),
      [
        "kind": [8], "flags": [0], "more": [0, 0], "queue": little(UInt32(0x0102_0304)),
        "time": little(0x1112_1314_1516_1718),
      ])
  }

  @Test func whatEachKindAdds() throws {
    let lease: [String: [UInt8]] = [
      "message": little(0x2122_2324_2526_2728), "slot": little(UInt32(0x3132_3334)),
      "deadline": little(0x4142_4344_4546_4748),
    ]
    let deadline = Timestamp(milliseconds: 0x4142_4344_4546_4748)
    let message: UInt64 = 0x2122_2324_2526_2728
    let slot: UInt32 = 0x3132_3334
    func added(_ record: Record) -> [UInt8] { Array(entry(record).dropFirst(16)) }
    try check("Leased", added(.leased(message: message, slot: slot, deadline: deadline)), lease)
    try check(
      "Lease changed", added(.leaseChanged(message: message, slot: slot, deadline: deadline)), lease
    )
    try check(
      "Deleted", added(.deleted(message: message, slot: slot)),
      lease.filter { $0.key != "deadline" })
    try check("Expired", added(.expired(through: message)), ["through": little(message)])
    try check("Queue changed", added(.queueChanged(settings: settings)), settingValues)
    let created = added(.queueCreated(name: "orders", settings: settings))
    try check(
      "Queue created", created, settingValues.merging(["name": Array("orders".utf8)]) { $1 })
    var fifo = settings
    fifo.deduplicationWindow = .milliseconds(0x7172_7374_7576)
    fifo.deadLetterSources = ["ab", "c"]
    let changed = added(.queueChanged(settings: fifo))
    #expect(entry(.queueChanged(settings: fifo))[1] == 1)
    try check("Queue changed", Array(changed[..<40]), settingValues)
    #expect(Array(changed[40..<44]) == little(UInt32(2)))
    try check(
      "Setting", Array(changed[44..<60]),
      [
        "number": little(UInt32(10)), "length": little(UInt32(8)),
        "value": little(0x7172_7374_7576),
      ], mayRepeat: ["length"])
    #expect(
      Array(changed[60...])
        == little(UInt32(13)) + little(UInt32(11)) + little(UInt32(2)) + Array("ab".utf8)
        + little(UInt32(1)) + Array("c".utf8))
    try check(
      "Transferred",
      added(
        .transferred(
          .init(
            message: message, slot: slot, target: QueueID(0x4142_4344), reason: .rejected))),
      [
        "message": little(message), "slot": little(slot), "target": little(UInt32(0x4142_4344)),
        "reason": little(UInt64(2)),
      ])
    let task = MessageID(randomHigh: 0x5152_5354_5556_5758, randomLow: 0x6162_6364_6566_6768)
    try check(
      "Task",
      added(
        .task(
          .init(
            id: task, event: .changed, number: 0x3132_3334, count: message,
            destination: "orders"))),
      [
        "id high": little(task.high), "id low": little(task.low), "event": little(UInt32(3)),
        "number": little(slot), "count": little(message), "destination": Array("orders".utf8),
      ])
    try check(
      "Attempted",
      added(
        .attempted(
          TextHash(high: 0x4142_4344, low: 0x7172_7374), [.init(message: message, slot: slot)])),
      [
        "hash high": little(UInt64(0x4142_4344)), "hash low": little(UInt64(0x7172_7374)),
        "count": little(UInt64(1)), "messages": little(message) + little(UInt64(slot)),
      ])
    for record in [Record.logCreated, .queueDeleted, .purged, .cleared] {
      #expect(added(record) == [])
    }
    try check(
      "Set aside", added(.setAside(message: message, slot: slot, size: 0x5152_5354)),
      lease.filter { $0.key != "deadline" }.merging(["size": little(UInt32(0x5152_5354))]) { $1 })
    #expect(added(.setAside(message: 1, slot: nil, size: 2))[8..<12].allSatisfy { $0 == 255 })
    let waiting = WaitingMessage(
      message: 0x2122_2324_2526_2728, offset: 0x3132_3334, size: 0x4142_4344,
      sentSecond: 0x5152_5354)
    try check(
      "Excised", added(.excised(message: message, segment: 0x6162_6364, size: 0x4142_4344)),
      [
        "message": little(message), "segment": little(UInt32(0x6162_6364)),
        "size": little(UInt32(0x4142_4344)),
      ])
    let drawn = added(.drawn(segment: 0x6162_6364, [waiting]))
    try check(
      "Drawn", drawn,
      [
        "segment": little(UInt32(0x6162_6364)), "count": little(UInt32(1)),
        "messages": Array(drawn.dropFirst(8)),
      ])
    try check(
      "Waiting message", Array(drawn.dropFirst(8)),
      [
        "message": little(message), "offset": little(UInt32(0x3132_3334)),
        "size": little(UInt32(0x4142_4344)), "sent second": little(UInt32(0x5152_5354)),
      ])
  }

  @Test func theKindsOfRecords() throws {
    let time = Timestamp(milliseconds: 1)
    let sent = Record.Sent(id: MessageID(randomHigh: 1, randomLow: 2), visibleAt: nil)
    let records: [(Record, String)] = [
      (.logCreated, "Log created"), (.sent(sent), "Sent"),
      (.queueCreated(name: "q", settings: settings), "Queue created"),
      (.queueChanged(settings: settings), "Queue changed"), (.queueDeleted, "Queue deleted"),
      (.leased(message: 1, slot: 2, deadline: time), "Leased"),
      (.leaseChanged(message: 1, slot: 2, deadline: time), "Lease changed"),
      (.deleted(message: 1, slot: 2), "Deleted"), (.purged, "Purged"),
      (.expired(through: 1), "Expired"), (.drawn(segment: 1, []), "Drawn"),
      (.setAside(message: 1, slot: 2, size: 3), "Set aside"), (.cleared, "Cleared"),
      (
        .transferred(
          .init(message: 1, slot: 2, target: QueueID(3), reason: .receivedTooOften)),
        "Transferred"
      ),
      (.task(.init(id: sent.id, event: .moved)), "Task"),
      (.attempted(TextHash(high: 1, low: 2), []), "Attempted"),
      (.excised(message: 1, segment: 2, size: 3), "Excised"),
    ]
    let lines = try Self.document()
    for (record, name) in records {
      let kind = entry(record)[0]
      #expect(lines.contains { $0.hasPrefix("| \(kind) | \(name) |") }, "\(name) is kind \(kind)")
    }
  }

  @Test func theNumbersOfSettings() throws {
    let lines = try Self.document()
    for setting in QueueSetting.allCases.dropFirst(5) {
      let row = "| \(setting.rawValue) | \(setting) |"
      #expect(lines.contains { $0.hasPrefix(row) }, "\(row)")
    }
  }

  @Test func aSentMessage() throws {
    let id = MessageID(randomHigh: 0x2122_2324_2526_2728, randomLow: 0x3132_3334_3536_3738)
    let content = MessageContent(body: Array("the body".utf8), groupID: "a group")
    let sent = Record.Sent(
      id: id, visibleAt: Timestamp(milliseconds: 0x4142_4344_4546_4748),
      group: TextHash(high: 0x5152_5354, low: 0x6162_6364),
      deduplication: TextHash(high: 0x7172_7374, low: 0x8182_8384))
    let bytes = entry(.sent(sent), content)
    let urgent = Record.Sent(id: id, visibleAt: nil, priority: 0x41)
    #expect(entry(.sent(urgent))[2..<4] == [0x41, 0])
    let held = Record.Sent(
      id: id, visibleAt: sent.visibleAt, group: sent.group, hasOwnDelay: true)
    #expect(entry(.sent(held))[2..<4] == [0, 1])
    #expect(bytes[1] == 195, "flags: delayed 1, extras 2, group 64, deduplication 128")
    #expect(entry(.sent(.init(id: id, visibleAt: nil)), .init(body: [1]))[1] == 0)
    let extras = little(UInt32(15)) + little(UInt32(1)) + little(UInt32(7)) + Array("a group".utf8)
    let start = 16 + 56 + extras.count
    #expect(Array(bytes[start...]) == content.body)
    #expect(Array(bytes[72..<start]) == extras)
    try check(
      "Sent", Array(bytes[16..<72]) + [0xee],
      [
        "id high": little(id.high), "id low": little(id.low),
        "visible at": little(0x4142_4344_4546_4748), "group high": little(UInt64(0x5152_5354)),
        "group low": little(UInt64(0x6162_6364)),
        "deduplication high": little(UInt64(0x7172_7374)),
        "deduplication low": little(UInt64(0x8182_8384)), "extras and body": [0xee],
      ])
    var plain = sent
    (plain.visibleAt, plain.deduplication) = (nil, nil)
    #expect(entry(.sent(plain), content).count == bytes.count - 24)
  }

  @Test func aCopyOfAMessage() throws {
    let id = MessageID(randomHigh: 0x2122_2324_2526_2728, randomLow: 0x3132_3334_3536_3738)
    func copy(slot: UInt32?, isAgain: Bool = false, hasExtras: Bool = false) -> [UInt8] {
      entry(
        .moved(
          .init(
            id: id, message: 0x4142_4344_4546_4748, slot: slot, isAgain: isAgain,
            hasExtras: hasExtras)))
    }
    try check(
      "Copy", copy(slot: 0x5152_5354).dropFirst(16) + [0xee],
      [
        "id high": little(id.high), "id low": little(id.low),
        "message": little(0x4142_4344_4546_4748), "slot": little(UInt32(0x5152_5354)),
        "extras and body": [0xee],
      ])
    #expect(copy(slot: nil).count == 40)
    // Kind, and flags: extras 2, moved 4, slot 8, parked 16, again 32.
    #expect(copy(slot: 1)[0] == 1 && copy(slot: 1)[1] == 4 + 8)
    #expect(copy(slot: nil)[1] == 4 + 16)
    #expect(copy(slot: nil, isAgain: true, hasExtras: true)[1] == 2 + 4 + 16 + 32)
    #expect(entry(.sent(.init(id: id, visibleAt: nil, isParked: true)))[1] == 16)
    let row = "8 slot, 16 parked, 32 copy of a copy, 64 group, 128 deduplication"
    #expect(try Self.document().contains { $0.contains(row) })
  }

  @Test func theExtrasOfAMessage() throws {
    let attributes = [
      MessageAttribute(name: "colour", type: "Text", value: .string("red")),
      MessageAttribute(name: "n", type: "Binary.x", value: .binary([1, 2, 3, 4])),
    ]
    let content = MessageContent(
      body: [], attributes: attributes, groupID: "the group", deduplicationID: "repeated",
      traceHeader: "trace", senderID: "sender")
    let sent = Record.Sent(id: MessageID(randomHigh: 1, randomLow: 2), visibleAt: nil)
    let extras = Array(entry(.sent(sent), content).dropFirst(32))
    var at = 4
    var tags: [UInt32] = []
    while at < extras.count {
      let length = Int(extras.u32(at: at + 4))
      let item = Array(extras[at..<at + 8 + length])
      let value = Array(item.dropFirst(8))
      try check(
        "Extra", item,
        ["tag": little(item.u32(at: 0)), "length": little(UInt32(length)), "value": value])
      if item.u32(at: 0) == 4 {
        try check(
          "Attribute", value,
          [
            "name length": little(UInt32(6)), "type length": little(UInt32(4)),
            "name, type, value": Array("colourTextred".utf8),
          ])
      }
      tags.append(item.u32(at: 0))
      at += 8 + length
    }
    #expect(at == extras.count)
    #expect(Int(extras.u32(at: 0)) == extras.count - 4)
    #expect(tags == [1, 6, 2, 3, 4, 5])
  }

  // MARK: Constants

  @Test func theConstants() throws {
    let text = try Self.document().joined(separator: "\n")
    #expect(LogFormat.version == 6 && text.contains("Format version 6"))
    #expect(LogFormat.sectorSize == 4096 && LogFormat.frameAlignment == 64)
    #expect(LogFormat.frameHeaderSize == 64 && LogFormat.segmentHeaderSize == 4096)
    #expect(LogFormat.recordHeaderSize == 8 && LogFormat.recordAlignment == 8)
    #expect(LogFormat.sealReserve == 8192 && HeadSlot.fileSize == 8192)
    #expect(LogFormat.lostLSNs == 1 << 28 && text.contains("2^28"))
    #expect(LogFormat.minimumSegmentSize == 65_536 && LogFormat.maximumSegmentSize == 1 << 30)
    for name in [
      "LOCK", "STORE", "STORE.new", "HEAD", ".seg", ".next", ".partial", ".torn-",
      ".checkpoint", ".index", ".damaged-", ".checkpoint.damaged", "`PNSKCKPT`", "`PNSKINDX`",
    ] {
      #expect(text.contains(name))
    }
  }
}
