// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// A record as names and values, for people and for programs.
enum RecordText {
  /// What a record says, or why it cannot be read.
  static func members(_ payload: borrowing RawSpan) -> [(String, JSON)] {
    do throws(RecordError) {
      let entry = try Entry(payload)
      var members = members(of: entry)
      switch entry.record {
      case .sent, .moved:
        if let key = try StoredMessage(payload).content.sealedWith {
          members.append(("sealedWith", .string(key)))
        }
      default: break
      }
      return members
    } catch {
      return [("record", .string("unreadable")), ("reason", .string(error.description))]
    }
  }

  static func members(of entry: Entry) -> [(String, JSON)] {
    var members: [(String, JSON)] = [("record", .string(name(entry.record)))]
    switch entry.record {
    case .logCreated, .cleared: break
    default: members.append(("queue", .unsigned(UInt64(entry.queue.value))))
    }
    members.append(("time", .integer(entry.time.milliseconds)))
    switch entry.record {
    case .logCreated, .queueDeleted, .purged, .cleared: break
    case .sent(let sent):
      members.append(("id", .string(sent.id.description)))
      if sent.isParked { members.append(("parked", .bool(true))) }
      if let visibleAt = sent.visibleAt {
        members.append(("visibleAt", .integer(visibleAt.milliseconds)))
      }
      if sent.priority > 0 { members.append(("priority", .unsigned(UInt64(sent.priority)))) }
      if let group = sent.group { members.append(("groupHash", .string(hex(group)))) }
      if let hash = sent.deduplication { members.append(("deduplicationHash", .string(hex(hash)))) }
    case .queueCreated(let name, let settings):
      members.append(("name", .string(name)))
      members += self.members(of: settings)
    case .queueChanged(let settings): members += self.members(of: settings)
    case .leased(let message, let slot, let deadline),
      .leaseChanged(let message, let slot, let deadline):
      members += [
        ("message", .unsigned(message)), ("slot", .unsigned(UInt64(slot))),
        ("deadline", .integer(deadline.milliseconds)),
      ]
    case .deleted(let message, let slot):
      members += [("message", .unsigned(message)), ("slot", .unsigned(UInt64(slot)))]
    case .transferred(let moved):
      members += [
        ("message", .unsigned(moved.message)), ("slot", .unsigned(UInt64(moved.slot))),
        ("target", .unsigned(UInt64(moved.target.value))), ("reason", .string("\(moved.reason)")),
      ]
    case .attempted(let hash, let messages):
      members += [("attemptHash", .string(hex(hash))), ("count", .int(messages.count))]
    case .task(let task):
      members += [
        ("task", .string(task.id.description)), ("event", .string("\(task.event)")),
        ("number", .unsigned(UInt64(task.number))), ("count", .unsigned(task.count)),
        ("destination", .string(task.destination)),
      ]
    case .expired(let through): members.append(("through", .unsigned(through)))
    case .moved(let moved):
      members += [
        ("id", .string(moved.id.description)), ("message", .unsigned(moved.message)),
        ("slot", moved.slot.map { .unsigned(UInt64($0)) } ?? .null),
      ]
    case .drawn(let segment, let messages):
      members += [
        ("segmentOrdinal", .unsigned(UInt64(segment))), ("count", .int(messages.count)),
        ("firstMessage", .lsn(messages.first?.message)),
        ("lastMessage", .lsn(messages.last?.message)),
      ]
    case .excised(let message, let segment, let size):
      members += [
        ("message", .unsigned(message)), ("segmentOrdinal", .unsigned(UInt64(segment))),
        ("messageBytes", .unsigned(UInt64(size))),
      ]
    case .setAside(let message, let slot, let size):
      members += [
        ("message", .unsigned(message)), ("slot", slot.map { .unsigned(UInt64($0)) } ?? .null),
        ("messageBytes", .unsigned(UInt64(size))),
      ]
    }
    return members
  }

  private static func hex(_ hash: TextHash) -> String {
    StoreID(high: hash.high, low: hash.low).description
  }

  private static func members(of settings: QueueSettings) -> [(String, JSON)] {
    (QueueSetting.allCases.prefix(QueueSetting.always) + settings.more).map { setting in
      switch settings[setting] {
      case .number(let number): ("\(setting)", .integer(number))
      case .flag(let isOn): ("\(setting)", .bool(isOn))
      case .text(let text): ("\(setting)", .string(text))
      case .names(let names): ("\(setting)", .array((names ?? []).map { .string($0) }))
      case .texts(let texts):
        (
          "\(setting)",
          .object(texts.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })
        )
      }
    }
  }

  static func name(_ record: Record) -> String {
    switch record {
    case .logCreated: "logCreated"
    case .sent: "sent"
    case .queueCreated: "queueCreated"
    case .queueChanged: "queueChanged"
    case .queueDeleted: "queueDeleted"
    case .leased: "leased"
    case .leaseChanged: "leaseChanged"
    case .deleted: "deleted"
    case .purged: "purged"
    case .expired: "expired"
    case .moved: "moved"
    case .drawn: "drawn"
    case .setAside: "setAside"
    case .cleared: "cleared"
    case .transferred: "transferred"
    case .task: "task"
    case .attempted: "attempted"
    case .excised: "excised"
    }
  }

  /// The same for people: the record's name, then names and values.
  static func line(_ members: [(String, JSON)]) -> String {
    members.map { name, value in
      switch (name, value) {
      case ("record", .string(let text)): text
      case ("time", .integer(let time)), ("deadline", .integer(let time)),
        ("visibleAt", .integer(let time)):
        "\(name) \(TimeText.text(time))"
      case (_, .string(let text)): "\(name) \(text)"
      default: "\(name) \(value.line)"
      }
    }.joined(separator: "  ")
  }
}
