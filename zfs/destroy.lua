-- Destroys a dataset with its snapshots, or neither: zfs-program(8).
-- Arguments: the dataset; the root dataset; "debris" to destroy one that is not whole.
-- Returns: "done", "absent", "lost" (the root dataset is), "partial" (unless "debris"),
-- "cloned" (by a tree that is whole), "clones" (by others only), "children", "held" (a
-- snapshot is), "busy", or an error number.
args = ...
argv = args["argv"]
tree, root, debris = argv[1], argv[2], argv[3] == "debris"

function whole(dataset)
    _, source = zfs.get_prop(dataset, "jetpack:created")
    return source == dataset
end

if not zfs.exists(root) then return "lost" end
if not zfs.exists(tree) then return "absent" end
if not debris and not whole(tree) then return "partial" end

for child in zfs.list.children(tree) do return "children" end
snapshots, clones = {}, false
for snapshot in zfs.list.snapshots(tree) do
    for clone in zfs.list.clones(snapshot) do
        if whole(clone) then return "cloned" end
        clones = true
    end
    if not clones and zfs.check.destroy(snapshot) ~= 0 then
        if zfs.get_prop(snapshot, "userrefs") > 0 then return "held" end
        return "busy"
    end
    table.insert(snapshots, snapshot)
end
if clones then return "clones" end
-- That it is mounted shows before a snapshot is gone only in this: with snapshots it cannot
-- be destroyed, mounted or not. One of them is its seal, for which a full pool has no room.
if zfs.check.rollback(tree) == EBUSY then return "busy" end
destroyed, err = {}, 0
for _, snapshot in ipairs(snapshots) do
    err = zfs.sync.destroy(snapshot)
    if err ~= 0 then break end
    table.insert(destroyed, snapshot)
end
if err == 0 then err = zfs.sync.destroy(tree) end
if err == 0 then return "done" end
for _, snapshot in ipairs(destroyed) do zfs.sync.snapshot(snapshot) end
if err == EBUSY then return "busy" end
return err
