// SPDX-License-Identifier: Apache-2.0

/// Appends JSON to bytes. The caller closes what it opens; commas come by themselves.
package struct JSONWriter {
  package private(set) var bytes: [UInt8] = []
  private var needsComma = false

  package init(capacity: Int = 256) { bytes.reserveCapacity(capacity) }

  package mutating func beginObject() { open(UInt8(ascii: "{")) }
  package mutating func endObject() { close(UInt8(ascii: "}")) }
  package mutating func beginArray() { open(UInt8(ascii: "[")) }
  package mutating func endArray() { close(UInt8(ascii: "]")) }

  private mutating func open(_ bracket: UInt8) {
    separate()
    bytes.append(bracket)
    needsComma = false
  }

  private mutating func close(_ bracket: UInt8) {
    bytes.append(bracket)
    needsComma = true
  }

  private mutating func separate() {
    if needsComma { bytes.append(UInt8(ascii: ",")) }
    needsComma = true
  }

  package mutating func key(_ name: String) {
    string(name)
    bytes.append(UInt8(ascii: ":"))
    needsComma = false
  }

  package mutating func string(_ text: String) {
    separate()
    appendQuoted(text.utf8)
  }

  /// Writes text that is UTF-8 as far as anyone knows; what is not comes out as U+FFFD.
  package mutating func string(_ text: [UInt8]) {
    separate()
    if text.allSatisfy({ $0 < 0x80 }) {
      appendQuoted(text)
    } else {
      appendQuoted(String(decoding: text, as: UTF8.self).utf8)
    }
  }

  package mutating func number(_ value: Int) {
    separate()
    bytes.append(contentsOf: String(value).utf8)
  }

  package mutating func bool(_ value: Bool) {
    separate()
    bytes.append(contentsOf: (value ? "true" : "false").utf8)
  }

  mutating func member(_ name: String, _ value: String) {
    key(name)
    string(value)
  }

  /// Writes nothing when there is no value.
  mutating func member(_ name: String, ifPresent value: String?) {
    if let value { member(name, value) }
  }

  private mutating func appendQuoted(_ text: some Collection<UInt8>) {
    bytes.append(UInt8(ascii: "\""))
    let handled: Void? = text.withContiguousStorageIfAvailable { appendEscaped($0) }
    if handled == nil { Array(text).withUnsafeBufferPointer { appendEscaped($0) } }
    bytes.append(UInt8(ascii: "\""))
  }

  /// Copies runs that need no escape in one go.
  private mutating func appendEscaped(_ text: UnsafeBufferPointer<UInt8>) {
    var start = 0
    var position = PlainText.end(of: UnsafeRawBufferPointer(text), from: 0, isQuoted: true)
    while position < text.count {
      let byte = text[position]
      if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") {
        bytes.append(contentsOf: text[start..<position])
        appendEscape(byte)
        start = position + 1
      }
      position += 1
    }
    bytes.append(contentsOf: text[start..<text.count])
  }

  private mutating func appendEscape(_ byte: UInt8) {
    bytes.append(UInt8(ascii: "\\"))
    switch byte {
    case 0x08: bytes.append(UInt8(ascii: "b"))
    case 0x09: bytes.append(UInt8(ascii: "t"))
    case 0x0a: bytes.append(UInt8(ascii: "n"))
    case 0x0c: bytes.append(UInt8(ascii: "f"))
    case 0x0d: bytes.append(UInt8(ascii: "r"))
    case 0..<0x20:
      bytes.append(contentsOf: "u00".utf8)
      bytes.append(Hex.digits[Int(byte >> 4)])
      bytes.append(Hex.digits[Int(byte & 15)])
    default: bytes.append(byte)
    }
  }
}

enum Hex {
  static let digits: [UInt8] = Array("0123456789abcdef".utf8)

  /// Of a digest: 64 bytes at most.
  static func lowercase(_ bytes: some Sequence<UInt8>) -> String {
    String(unsafeUninitializedCapacity: 128) { text in
      var count = 0
      for byte in bytes.prefix(64) {
        text[count] = digits[Int(byte >> 4)]
        text[count + 1] = digits[Int(byte & 15)]
        count += 2
      }
      return count
    }
  }
}
