// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// Typed access to the members of a request. A member of the wrong JSON type is a
/// SerializationException in the words of the real service; unknown members are ignored, a null
/// counts as absent.
struct Fields: Sendable {
  let node: JSONNode

  /// Wraps the top-level value of a request, or a structure inside it.
  init(_ node: JSONNode) throws(SQSError) {
    guard node.kind == .object else { throw Self.notStructure(node) }
    self.node = node
  }

  static func failure(_ text: String) -> SQSError { SQSError(.serialization, text) }

  private static func name(_ kind: JSONDocument.Kind) -> String {
    switch kind {
    case .null: "NULL_VALUE"
    case .yes: "TRUE_VALUE"
    case .no: "FALSE_VALUE"
    case .number: "NUMBER_VALUE"
    default: "STRING_VALUE"
    }
  }

  /// A container where none belongs; nil for the other kinds.
  private static func misplacedContainer(_ node: JSONNode) -> SQSError? {
    switch node.kind {
    case .array: failure("Start of list found where not expected")
    case .object: failure("Start of structure or map found where not expected.")
    default: nil
    }
  }

  private static func notScalar(_ node: JSONNode, _ wanted: String) -> SQSError {
    misplacedContainer(node)
      ?? failure("\(name(node.kind)) can not be converted to \(wanted)")
  }

  private static func notStructure(_ node: JSONNode) -> SQSError {
    if let error = misplacedContainer(node) { return error }
    let type =
      switch node.kind {
      case .number: "Integer"
      case .yes, .no: "Boolean"
      default: "String"
      }
    return failure("Unrecognized collection type class java.lang.\(type)")
  }

  static func text(_ node: JSONNode) throws(SQSError) -> String {
    guard node.kind == .string else { throw notScalar(node, "a String") }
    return node.string
  }

  func string(_ name: String) throws(SQSError) -> String? {
    guard let value = node.member(name) else { return nil }
    return try Self.text(value)
  }

  /// The string as `JSONNode.stringBytes` gives it.
  func bytes(_ name: String) throws(SQSError) -> [UInt8]? {
    guard let value = node.member(name) else { return nil }
    guard value.kind == .string else { throw Self.notScalar(value, "a String") }
    return value.stringBytes
  }

  func integer(_ name: String) throws(SQSError) -> Int? {
    guard let value = node.member(name) else { return nil }
    if value.document.isForm {
      let text = try Self.text(value)
      guard let integer = Int(text) else {
        throw .invalid(text, for: name, "Must be an integer.")
      }
      return integer
    }
    guard let integer = value.integer else { throw Self.notScalar(value, "an Integer") }
    return integer
  }

  /// A base64 string, decoded.
  func blob(_ name: String) throws(SQSError) -> [UInt8]? {
    guard let text = try bytes(name) else { return nil }
    guard let bytes = Base64.decode(text) else {
      throw Self.failure("\(name) is not valid base64")
    }
    return bytes
  }

  /// The elements of a list member; nulls among them are left out.
  func list(_ name: String) throws(SQSError) -> [JSONNode]? {
    guard let value = node.member(name) else { return nil }
    guard value.kind == .array else { throw Self.notStructure(value) }
    return value.elements.filter { $0.kind != .null }
  }

  func strings(_ name: String) throws(SQSError) -> [String]? {
    guard let elements = try list(name) else { return nil }
    var result: [String] = []
    result.reserveCapacity(elements.count)
    for element in elements { result.append(try Self.text(element)) }
    return result
  }

  func structures(_ name: String) throws(SQSError) -> [Fields]? {
    guard let elements = try list(name) else { return nil }
    var result: [Fields] = []
    result.reserveCapacity(elements.count)
    for element in elements { result.append(try Fields(element)) }
    return result
  }

  /// The entries of a map member, each key once, with its last value, at its first place.
  func map(_ name: String) throws(SQSError) -> [(key: String, value: JSONNode)]? {
    guard let value = node.member(name) else { return nil }
    guard value.kind == .object else { throw Self.notStructure(value) }
    var places: [[UInt8]: Int] = [:]
    var result: [(key: String, value: JSONNode)] = []
    for (key, value) in value.members {
      if let place = places.updateValue(result.count, forKey: key.stringBytes) {
        places[key.stringBytes] = place
        result[place].value = value
      } else {
        result.append((key.string, value))
      }
    }
    return result
  }

  /// A map of strings; nulls are left out.
  func stringMap(_ name: String) throws(SQSError) -> [(name: String, value: String)]? {
    guard let entries = try map(name) else { return nil }
    var result: [(name: String, value: String)] = []
    for (key, value) in entries where value.kind != .null {
      result.append((key, try Self.text(value)))
    }
    return result
  }
}
