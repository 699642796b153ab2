// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// Writes an answer in the protocol of its request: actions say what there is, not how it looks.
struct ReplyWriter {
  /// What a list or a map is called: as a member in JSON, and each of its elements in XML, where
  /// they stand side by side.
  struct Name: Sendable {
    var json: String
    var xml: String

    init(_ json: String, _ xml: String) { (self.json, self.xml) = (json, xml) }
  }

  private let isJSON: Bool
  // One of the two is used.
  private var json: JSONWriter
  private var xml: XMLWriter

  private init(_ wire: WireProtocol) {
    isJSON = wire == .json
    json = JSONWriter(capacity: isJSON ? 256 : 0)
    xml = XMLWriter(isJSON ? "" : "<?xml version=\"1.0\"?>")
  }

  /// The answer of an action; `write` is nil when it has no output.
  static func response(
    _ wire: WireProtocol, _ action: Action, requestID: String,
    _ write: ((inout ReplyWriter) -> Void)?
  ) -> SQSResponse {
    var reply = ReplyWriter(wire)
    guard wire == .query else {
      guard let write else { return .json([], requestID: requestID) }
      reply.json.beginObject()
      write(&reply)
      reply.json.endObject()
      return .json(reply.json.bytes, requestID: requestID)
    }
    let name = action.rawValue
    reply.xml.markup("<\(name)Response xmlns=\"\(XMLWriter.namespace)\">")
    if let write {
      let start = reply.xml.bytes.count
      reply.xml.open("\(name)Result")
      let inside = reply.xml.bytes.count
      write(&reply)
      if reply.xml.bytes.count == inside {
        reply.xml.cut(to: start)
        reply.xml.markup("<\(name)Result/>")
      } else {
        reply.xml.close("\(name)Result")
      }
    }
    reply.xml.markup(
      "<ResponseMetadata><RequestId>\(requestID)</RequestId></ResponseMetadata></\(name)Response>")
    return .xml(200, reply.xml.bytes, requestID: requestID)
  }

  /// Writes nothing when there is no value.
  mutating func member(_ name: String, ifPresent value: String?) {
    if let value { member(name, value) }
  }

  mutating func member(_ name: String, _ value: String) {
    guard isJSON else { return xml.element(name, value.utf8) }
    json.member(name, value)
  }

  /// A text of any bytes; what is not UTF-8 comes out as U+FFFD.
  mutating func member(_ name: String, _ value: [UInt8]) {
    guard isJSON else { return xml.element(name, value) }
    json.key(name)
    json.string(value)
  }

  mutating func number(_ name: String, _ value: Int) {
    guard isJSON else { return xml.element(name, String(value).utf8) }
    json.key(name)
    json.number(value)
  }

  mutating func bool(_ name: String, _ value: Bool) {
    guard isJSON else { return xml.element(name, (value ? "true" : "false").utf8) }
    json.key(name)
    json.bool(value)
  }

  /// A list of texts; nothing when it is empty.
  mutating func texts(_ name: Name, _ values: [String]) {
    guard !values.isEmpty else { return }
    guard isJSON else {
      for value in values { xml.element(name.xml, value.utf8) }
      return
    }
    json.key(name.json)
    json.beginArray()
    for value in values { json.string(value) }
    json.endArray()
  }

  /// A list of structures; nothing when it is empty, unless JSON is to have it all the same.
  mutating func structures<Items: Collection>(
    _ name: Name, _ items: Items, evenEmpty: Bool = false,
    _ write: (Items.Element, inout ReplyWriter) -> Void
  ) {
    guard !items.isEmpty || evenEmpty else { return }
    if isJSON {
      json.key(name.json)
      json.beginArray()
    }
    for item in items {
      if isJSON { json.beginObject() } else { xml.open(name.xml) }
      write(item, &self)
      if isJSON { json.endObject() } else { xml.close(name.xml) }
    }
    if isJSON { json.endArray() }
  }

  /// A map of texts; nothing when it is empty.
  mutating func map(
    _ name: Name, key: String = "Name", _ entries: [(name: String, value: String)]
  ) {
    guard !entries.isEmpty else { return }
    if isJSON {
      json.key(name.json)
      json.beginObject()
      for entry in entries { json.member(entry.name, entry.value) }
      json.endObject()
    } else {
      for entry in entries {
        xml.open(name.xml)
        xml.element(key, entry.name.utf8)
        xml.element("Value", entry.value.utf8)
        xml.close(name.xml)
      }
    }
  }

  /// A map of structures by name; nothing when it is empty.
  mutating func map<Item>(
    _ name: Name, _ items: [Item], by key: KeyPath<Item, String>,
    _ write: (Item, inout ReplyWriter) -> Void
  ) {
    guard !items.isEmpty else { return }
    if isJSON {
      json.key(name.json)
      json.beginObject()
    }
    for item in items {
      if isJSON {
        json.key(item[keyPath: key])
        json.beginObject()
        write(item, &self)
        json.endObject()
      } else {
        xml.open(name.xml)
        xml.element("Name", item[keyPath: key].utf8)
        xml.open("Value")
        write(item, &self)
        xml.close("Value")
        xml.close(name.xml)
      }
    }
    if isJSON { json.endObject() }
  }
}

/// Writes XML elements without white space between them.
struct XMLWriter {
  static let namespace = "http://queue.amazonaws.com/doc/2012-11-05/"
  private(set) var bytes: [UInt8]

  init(_ start: String) { bytes = Array(start.utf8) }

  mutating func markup(_ text: String) { bytes.append(contentsOf: text.utf8) }

  mutating func cut(to count: Int) { bytes.removeLast(bytes.count - count) }

  mutating func open(_ name: String) {
    bytes.append(UInt8(ascii: "<"))
    bytes.append(contentsOf: name.utf8)
    bytes.append(UInt8(ascii: ">"))
  }

  mutating func close(_ name: String) {
    bytes.append(contentsOf: "</".utf8)
    bytes.append(contentsOf: name.utf8)
    bytes.append(UInt8(ascii: ">"))
  }

  mutating func element(_ name: String, _ value: some Collection<UInt8>) {
    open(name)
    text(value)
    close(name)
  }

  /// Escapes markup and the carriage return, which a reader would turn into a line feed. Characters
  /// that XML 1.0 has no place for come out as U+FFFD; so does what is not UTF-8.
  mutating func text(_ value: some Collection<UInt8>) {
    if value.withContiguousStorageIfAvailable({ appendIfPlain($0) }) ?? false { return }
    for scalar in String(decoding: value, as: UTF8.self).unicodeScalars {
      switch scalar {
      case "&": markup("&amp;")
      case "<": markup("&lt;")
      case ">": markup("&gt;")
      case "\"": markup("&quot;")
      case "\r": markup("&#xD;")
      case "\u{0}"..<"\t", "\u{b}"..<" ", "\u{fffe}", "\u{ffff}": markup("\u{fffd}")
      default: bytes.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
      }
    }
  }

  /// Takes ASCII without anything to escape as it is.
  private mutating func appendIfPlain(_ text: UnsafeBufferPointer<UInt8>) -> Bool {
    for byte in text {
      switch byte {
      case 0x09, 0x0a: continue
      case 0..<0x20, 0x80..., UInt8(ascii: "&"), UInt8(ascii: "<"), UInt8(ascii: ">"),
        UInt8(ascii: "\""):
        return false
      default: continue
      }
    }
    bytes.append(contentsOf: text)
    return true
  }
}
